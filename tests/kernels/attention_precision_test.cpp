// Attention in bfloat16 and float16 against the formula done plainly in that type.
#include <gtest/gtest.h>

#include <string>

#include "kernels/ops.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/attention_passes.h"
#include "tests/kernels/attention_reference.h"
#include "tests/support/tensors.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

// bfloat16 and float16 storage: at most twice the error of the formula done plainly in that type, or that of
// float32 where the plain formula happens to be exact.
class AttentionPrecision : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, AttentionPrecision, testing::ValuesIn(low_precisions),
                         [](const auto& info) { return std::string(name_of(info.param)); });

void expect_at_most_twice_the_error(const AttentionCase& c, const AttentionTensors& ours,
                                    const AttentionTensors& plain, const AttentionTensors& exact) {
  const auto of_ours = results(c, ours, exact), of_plain = results(c, plain, exact);
  for (std::size_t i = 0; i < of_ours.size(); ++i)
    ASSERT_LE(relative_error(*of_ours[i].ours, *of_ours[i].reference),
              std::max(1e-5, 2 * relative_error(*of_plain[i].ours, *of_plain[i].reference)))
        << of_ours[i].name << ": " << describe(c);
}

void expect_as_good_as_plain(Ops& ops, const AttentionCase& c, DType dtype) {
  AttentionTensors ours = random_inputs(c, dtype, 4);
  AttentionTensors exact = converted(ours, DType::f64), plain = exact;
  run_forward(ops, c, ours);
  run_backward(ops, c, ours);
  reference_attention(exact, c.config);
  reference_attention(plain, c.config, RoundTo{dtype});
  expect_at_most_twice_the_error(c, ours, plain, exact);
}

// The same against the CPU, where the plain formula takes too long.
void expect_as_good_as_cpu(Ops& ops, const AttentionCase& c, DType dtype) {
  const auto cpu = make_cpu_ops();
  AttentionTensors ours = random_inputs(c, dtype, 4);
  AttentionTensors exact = converted(ours, DType::f64), plain = ours;
  for (const auto& [device, t] : {std::pair{&ops, &ours}, {cpu.get(), &plain}, {cpu.get(), &exact}}) {
    run_forward(*device, c, *t);
    run_backward(*device, c, *t);
  }
  expect_at_most_twice_the_error(c, ours, plain, exact);
}

TEST_P(AttentionPrecision, IsAsGoodAsThePlainFormula) {
  const auto ops = make_test_ops();
  for (const AttentionConfig& config : typical_configs(64, 16))
    expect_as_good_as_plain(*ops, {1, 2, 300, 32, config}, GetParam());
}

TEST_P(AttentionPrecision, TakesEveryHeadDimension) {
  const auto ops = make_test_ops();
  for (std::int64_t d : {1, 7, 16, 40, 64, 80, 96, 128, 200, 256})
    for (const AttentionConfig& config : {AttentionConfig{full()}, AttentionConfig{eva(36, 12)}})
      expect_as_good_as_plain(*ops, {1, 1, 100, d, config}, GetParam());
}

// So many sequences that an error is the mean of many, however short they are.
TEST_P(AttentionPrecision, TakesEveryLength) {
  const auto ops = make_test_ops();
  for (std::int64_t T : {1, 7, 16, 17, 64, 65, 130})
    for (const AttentionConfig& config : typical_configs(28, 7)) {
      if (device_is_simulated() && T < 16) continue;
      expect_as_good_as_plain(*ops, {1 + 64 / T, 2, T, 24, config}, GetParam());
    }
}

// So long that the queries of a chunk are cut into segments, some of which do not see it.
TEST_P(AttentionPrecision, TakesLongSequences) {
  const auto ops = make_test_ops();
  for (WindowKind window_kind : {WindowKind::block, WindowKind::sliding})
    expect_as_good_as_plain(*ops, {1, 1, 600, 16, {eva(32, 4, window_kind), ChunkBias::none}}, GetParam());
  if (ops->device() == Device::cpu || device_is_simulated()) return;
  for (const AttentionConfig& config : typical_configs(256, 16))
    for (std::int64_t T : {2048, 8192}) expect_as_good_as_cpu(*ops, {1, 4, T, 64, config}, GetParam());
}

}  // namespace
}  // namespace flasheva
