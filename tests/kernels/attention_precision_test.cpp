// Attention in bfloat16 and float16 against the formula done plainly in that type.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

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
class LowPrecisionAttention : public testing::TestWithParam<DType> {
 protected:
  void expect_as_good_as_plain(const AttentionCase& c) {
    AttentionTensors ours = random_inputs(c, GetParam(), 4);
    AttentionTensors exact = converted(ours, DType::f64), plain = exact;
    run_forward(*ops_, c, ours);
    run_backward(*ops_, c, ours);
    reference_attention(exact, c.config);
    reference_attention(plain, c.config, RoundTo{GetParam()});
    compare(c, ours, plain, exact);
  }

  // The same against the CPU, where the plain formula takes too long.
  void expect_as_good_as_cpu(const AttentionCase& c) {
    const auto cpu = make_cpu_ops();
    AttentionTensors ours = random_inputs(c, GetParam(), 4);
    AttentionTensors exact = converted(ours, DType::f64), plain = ours;
    for (const auto& [device, t] : {std::pair{ops_.get(), &ours}, {cpu.get(), &plain}, {cpu.get(), &exact}}) {
      run_forward(*device, c, *t);
      run_backward(*device, c, *t);
    }
    compare(c, ours, plain, exact);
  }

  void TearDown() override {
    EXPECT_LE(std::sqrt(bias_.ours), std::max(1e-5 * std::sqrt(bias_.norm), 2 * std::sqrt(bias_.plain)))
        << "dchunk_bias";
  }

 private:
  void compare(const AttentionCase& c, const AttentionTensors& ours, const AttentionTensors& plain,
               const AttentionTensors& exact) {
    const auto of_ours = results(c, ours, exact), of_plain = results(c, plain, exact);
    for (std::size_t i = 0; i < of_ours.size(); ++i) {
      const TestTensor &x = *of_ours[i].ours, &y = *of_plain[i].ours, &reference = *of_ours[i].reference;
      if (std::string(of_ours[i].name) != "dchunk_bias") {
        ASSERT_LE(relative_error(x, reference), std::max(1e-5, 2 * relative_error(y, reference)))
            << of_ours[i].name << ": " << describe(c);
        continue;
      }
      bias_.ours += squared_distance(x, reference), bias_.plain += squared_distance(y, reference);
      bias_.norm += dot(reference, reference);
    }
  }

  static double squared_distance(const TestTensor& x, const TestTensor& y) {
    double sum = 0;
    for (std::int64_t i = 0; i < x.size(); ++i) sum += (x.get(i) - y.get(i)) * (x.get(i) - y.get(i));
    return sum;
  }

  // The gradient of a head's bias is one number, a sum with cancellation, whose error is chance: those of all
  // cases of a test are judged together. Squares.
  struct {
    double ours = 0, plain = 0, norm = 0;
  } bias_;
  std::unique_ptr<Ops> ops_ = make_test_ops();
};

class AttentionPrecision : public LowPrecisionAttention {};
INSTANTIATE_TEST_SUITE_P(Types, AttentionPrecision, testing::ValuesIn(low_precisions),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(AttentionPrecision, IsAsGoodAsThePlainFormula) {
  for (const AttentionConfig& config : typical_configs(64, 16)) {
    const std::int64_t heads = config.chunk_bias == ChunkBias::learned ? 16 : 2;
    expect_as_good_as_plain({1, heads, 300, 32, config});
  }
}

TEST_P(AttentionPrecision, TakesEveryHeadDimension) {
  for (std::int64_t d : {1, 7, 16, 40, 64, 80, 96, 128, 200, 256})
    for (const AttentionConfig& config : {AttentionConfig{full()}, AttentionConfig{eva(36, 12)}})
      expect_as_good_as_plain({1, 1 + 16 / d, 100, d, config});
}

// Every variant in tiles of every shape (attention_mma_tile.cuh), over several tiles of queries, windows and
// tiles of chunks.
TEST_P(AttentionPrecision, TakesEveryVariantAtEveryHeadDimension) {
  std::vector<AttentionConfig> variants{{full()}, {sliding(40)}};
  for (WindowKind window_kind : {WindowKind::block, WindowKind::sliding})
    for (ChunkVisibility visible : {ChunkVisibility::outside_window, ChunkVisibility::all_past})
      variants.push_back({eva(36, 2, window_kind, visible), ChunkBias::log_chunk});
  for (std::int64_t d : {32, 64, 80, 96, 128, 256})
    for (const AttentionConfig& config : variants) expect_as_good_as_plain({1, 1, 150, d, config});
}

// So many sequences that an error is the mean of many, however short they are.
TEST_P(AttentionPrecision, TakesEveryLength) {
  for (std::int64_t T : {16, 17, 31, 33, 47, 63, 64, 65, 97, 127, 128, 130, 191, 257, 300})
    for (const AttentionConfig& config : typical_configs(28, 7))
      expect_as_good_as_plain({1 + 64 / T, 1, T, 24, config});
}

TEST_P(AttentionPrecision, TakesShortSequences) {
  const std::int64_t tokens = device_is_simulated() ? 16 : 64;  // a block of threads a sequence takes a while
  for (std::int64_t T : {1, 2, 3, 5, 7, 11, 15})
    for (const AttentionConfig& config : typical_configs(4, 2))
      expect_as_good_as_plain({1 + tokens / T, 2, T, 24, config});
}

// So long that the queries of a chunk are cut into segments, some of which do not see it.
TEST_P(AttentionPrecision, TakesLongSequences) {
  for (WindowKind window_kind : {WindowKind::block, WindowKind::sliding}) {
    expect_as_good_as_plain({1, 1, 600, 16, {eva(32, 4, window_kind), ChunkBias::none}});
    expect_as_good_as_plain({1, 1, 2048, 8, {eva(64, 16, window_kind), ChunkBias::none}});
  }
  expect_as_good_as_plain({1, 1, 2048, 8, {sliding(64)}});
}

TEST_P(AttentionPrecision, TakesVeryLongSequences) {
  std::vector<Visibility> geometries{eva(256, 16), eva(256, 16, WindowKind::sliding)};
  if (device_is_simulated()) geometries = {eva(64, 64)};  // the fewest tiles of keys
  for (const Visibility& visibility : geometries)
    expect_as_good_as_plain({1, 1, 8192, 8, {visibility, ChunkBias::none}});
}

// Sizes of practice. `cuda` in its name lets it be skipped where there is no GPU (scripts/test.sh).
class CudaAttention : public LowPrecisionAttention {};
INSTANTIATE_TEST_SUITE_P(Types, CudaAttention, testing::ValuesIn(low_precisions),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(CudaAttention, IsAsGoodAsTheCpu) {
  if (!device_is_gpu()) GTEST_SKIP() << "compares a GPU with the CPU";
  for (const AttentionConfig& config : typical_configs(256, 16))
    for (std::int64_t T : {2048, 8192}) expect_as_good_as_cpu({1, 4, T, 64, config});
}

}  // namespace
}  // namespace flasheva
