// Attention of all kinds, in float64 and float32, against a plain dense computation in float64.
#include <gtest/gtest.h>

#include <string>

#include "kernels/ops.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/attention_passes.h"
#include "tests/kernels/attention_reference.h"
#include "tests/kernels/pytorch_fixtures.h"
#include "tests/support/tensors.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

void expect_close(Ops& ops, const AttentionCase& c, DType dtype, double bound) {
  AttentionTensors ours = random_inputs(c, dtype, 1), reference = converted(ours, DType::f64);
  run_forward(ops, c, ours);
  run_backward(ops, c, ours);
  reference_attention(reference, c.config);
  for (const auto& [name, x, expected] : results(c, ours, reference)) {
    // The bias's gradient is one sum, with cancellation, over all queries and chunks.
    const bool long_sum = dtype == DType::f32 && std::string(name) == "dchunk_bias";
    ASSERT_LT(relative_error(*x, *expected), long_sum ? 1e-4 : bound) << name << ": " << describe(c);
  }
}

TEST(Attention, MatchesTheDefinitionInFloat64AtEveryLength) {
  FLASHEVA_NEEDS_FLOAT64();
  const auto ops = make_test_ops();
  std::vector<std::int64_t> lengths{1, 2, 3, 4, 7, 8, 15, 16, 17, 23, 31, 40, 63, 64, 65, 70};
  if (device_is_simulated()) lengths = {1, 17, 32, 65};
  for (const AttentionConfig& config : all_configs())
    for (std::int64_t T : lengths) expect_close(*ops, {1, 2, T, 3, config}, DType::f64, 1e-12);
}

// Sequences of several blocks of queries and keys.
TEST(Attention, MatchesTheDefinitionInFloat64AcrossBlocks) {
  FLASHEVA_NEEDS_FLOAT64();
  const auto ops = make_test_ops();
  for (std::int64_t T : {127, 128, 129, 200, 300})
    for (const auto& [window, chunk] : {std::pair{48, 12}, {64, 16}, {100, 5}, {256, 16}})
      for (const AttentionConfig& config : typical_configs(window, chunk))
        expect_close(*ops, {1, 1, T, 5, config}, DType::f64, 1e-12);
}

TEST(Attention, GradientsAreCentralDifferences) {
  FLASHEVA_NEEDS_FLOAT64();
  const auto ops = make_test_ops();
  std::vector<std::int64_t> lengths{1, 6, 21};
  if (device_is_simulated()) lengths = {1, 6};
  for (std::int64_t T : lengths)
    for (const AttentionConfig& config : typical_configs(6, 3)) {
      const AttentionCase c{1, 2, T, 3, config};
      AttentionTensors t = random_inputs(c, DType::f64, 2);
      run_forward(*ops, c, t);
      run_backward(*ops, c, t);
      const auto loss = [&] {
        run_forward(*ops, c, t);
        return dot(t.out, t.dout);
      };
      std::vector<std::pair<TestTensor*, TestTensor*>> pairs{{&t.q, &t.dq}, {&t.k, &t.dk}, {&t.v, &t.dv}};
      if (c.chunks() > 0) pairs.insert(pairs.end(), {{&t.kappa, &t.dkappa}, {&t.beta, &t.dbeta}});
      if (config.chunk_bias == ChunkBias::learned) pairs.push_back({&t.chunk_bias, &t.dchunk_bias});
      for (const auto& [x, gradient] : pairs) {
        const bool vanishes = T == 1 && x != &t.v;  // a softmax over one key is 1
        const TestTensor expected =
            vanishes ? TestTensor::zeros(DType::f64, x->shape()) : central_differences(*x, loss);
        ASSERT_LT(relative_error(*gradient, expected), 1e-7) << describe(c);
      }
    }
}

// float32 against float64 on the same inputs: 1e-5, and 1e-4 where thousands of terms are summed.
TEST(Attention, Float32IsCloseToFloat64) {
  const auto ops = make_test_ops();
  for (std::int64_t d : {1, 17, 32, 64, 80, 96, 128, 200, 256})
    for (const AttentionConfig& config : typical_configs(64, 16))
      expect_close(*ops, {1, 1, 300, d, config}, DType::f32, 1e-5);
}

TEST(Attention, Float32IsCloseToFloat64AtEveryLength) {
  const auto ops = make_test_ops();
  for (const AttentionConfig& config : typical_configs(28, 7)) {
    for (std::int64_t T : {1, 2, 3, 5, 8, 13, 21, 31, 33, 47, 63, 64, 65, 97, 127, 128, 130, 191, 257, 299})
      expect_close(*ops, {1, 2, T, 24, config}, DType::f32, 1e-5);
    for (std::int64_t d : {72, 136})  // smaller tiles of a GPU
      for (std::int64_t T : {7, 15, 17, 33, 47, 49})
        expect_close(*ops, {1, 1, T, d, config}, DType::f32, 1e-5);
  }
}

TEST(Attention, Float32IsCloseToFloat64OnLongSequences) {
  const auto ops = make_test_ops();
  for (const AttentionConfig& config : typical_configs(256, 16))
    expect_close(*ops, {1, 1, 2048, 8, config}, DType::f32, 1e-4);
  expect_close(*ops, {1, 1, 8192, 8, {eva(256, 16), ChunkBias::none}}, DType::f32, 1e-4);
}

// A window as long as the sequence is full attention, to the bit: no chunk is outside of it.
TEST(Attention, WindowOfTheWholeSequenceIsFullAttention) {
  const auto ops = make_test_ops();
  for (WindowKind window_kind : {WindowKind::block, WindowKind::sliding})
    for (std::int64_t T : {1, 37, 200, 208}) {
      const AttentionCase windowed{1, 2, T, 20, {eva(208, 16, window_kind), ChunkBias::log_chunk}},
          whole{1, 2, T, 20, {full()}};
      AttentionTensors ours = random_inputs(windowed, DType::f32, 5), reference = ours;
      run_forward(*ops, windowed, ours);
      run_backward(*ops, windowed, ours);
      run_forward(*ops, whole, reference);
      run_backward(*ops, whole, reference);
      for (const auto& [name, x, expected] : results(whole, ours, reference))
        for (std::int64_t i = 0; i < x->size(); ++i)
          ASSERT_EQ(x->get(i), expected->get(i)) << name << ": T " << T;
      for (const TestTensor* gradient : {&ours.dkappa, &ours.dbeta})
        for (std::int64_t i = 0; windowed.chunks() > 0 && i < gradient->size(); ++i)
          ASSERT_EQ(gradient->get(i), 0);
    }
}

TEST(Attention, EveryPastTokenIsCoveredOnceOutsideTheWindow) {
  for (WindowKind window_kind : {WindowKind::block, WindowKind::sliding})
    for (const auto& [window, chunk] : {std::pair{4, 2}, {7, 7}, {12, 3}, {16, 8}, {5, 1}, {256, 16}}) {
      const Visibility visibility = eva(window, chunk, window_kind);
      for (std::int64_t n = 0; n < 600; ++n)
        for (std::int64_t m = 0; m <= n; ++m) {
          const int exactly = m >= visibility.first_token(n),
                    by_chunk = m / chunk < visibility.visible_chunks(n);
          ASSERT_EQ(exactly + by_chunk, 1)
              << "query " << n << " token " << m << " W " << window << " P " << chunk;
        }
    }
}

TEST(Attention, AddsToTheGradientOfTheChunkBias) {
  FLASHEVA_NEEDS_FLOAT64();
  const auto ops = make_test_ops();
  const AttentionCase c{3, 2, 40, 4, {eva(8, 4), ChunkBias::learned}};
  AttentionTensors once = random_inputs(c, DType::f64, 6);
  run_forward(*ops, c, once);
  run_backward(*ops, c, once);
  AttentionTensors twice = once;
  ops->attention_backward(twice.dq, twice.dk, twice.dv, twice.dkappa, twice.dbeta, twice.dchunk_bias,
                          twice.dout, twice.out, twice.log_sum_exp, twice.q, twice.k, twice.v, twice.kappa,
                          twice.beta, twice.chunk_bias, c.config);
  for (std::int64_t h = 0; h < c.H; ++h)
    EXPECT_NEAR(twice.dchunk_bias.get(h), 2 * once.dchunk_bias.get(h), 1e-12);
}

void expect_the_same_bits_again(Ops& ops, const AttentionCase& c, DType dtype, int repetitions) {
  AttentionTensors first = random_inputs(c, dtype, 7);
  run_forward(ops, c, first);
  run_backward(ops, c, first);
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    AttentionTensors again = random_inputs(c, dtype, 7);
    run_forward(ops, c, again);
    run_backward(ops, c, again);
    for (const auto& [name, x, expected] : results(c, again, first))
      for (std::int64_t i = 0; i < x->size(); ++i)
        ASSERT_EQ(x->get(i), expected->get(i)) << name << ": " << describe(c);
  }
}

// So long that the queries of a chunk are cut into segments.
TEST(Attention, RepeatsBitwise) {
  const auto ops = make_test_ops();
  for (std::int64_t heads : {1, 3})  // one head is cut between the threads
    for (const AttentionConfig& config : typical_configs(64, 16))
      expect_the_same_bits_again(*ops, {1, heads, 520, 40, config}, DType::f32, 3);
}

TEST(Attention, RepeatsBitwiseInLowPrecision) {
  const auto ops = make_test_ops();
  const bool slow = device_is_simulated();
  for (std::int64_t heads : slow ? std::vector<std::int64_t>{1} : std::vector<std::int64_t>{1, 3})
    for (const AttentionConfig& config : typical_configs(64, 16))
      expect_the_same_bits_again(*ops, {1, heads, 520, 40, config}, DType::bf16, slow ? 1 : 3);
}

AttentionConfig config_of(const nlohmann::json& scalars) {
  const auto is = [&](const char* key, const char* value) {
    return scalars.value(key, std::string()) == value;
  };
  AttentionConfig config;
  config.visibility = {
      is("kind", "full")      ? AttentionKind::full
      : is("kind", "sliding") ? AttentionKind::sliding
                              : AttentionKind::eva,
      is("window_kind", "sliding") ? WindowKind::sliding : WindowKind::block,
      is("chunk_visibility", "all_past") ? ChunkVisibility::all_past : ChunkVisibility::outside_window,
      scalars.value("window", 0), scalars.value("chunk", 0)};
  config.chunk_bias = is("chunk_bias", "log_chunk") ? ChunkBias::log_chunk
                      : is("chunk_bias", "learned") ? ChunkBias::learned
                                                    : ChunkBias::none;
  return config;
}

// Another program's float64: 1e-12 is a thousand roundings. In float32 the inputs' own rounding comes in,
// 2^-24 of values up to a hundred times their spread.
TEST(Attention, MatchesPyTorch) {
  const auto ops = make_test_ops();
  const PyTorchFixtures fixtures;
  ASSERT_GT(fixtures.cases("attention").size(), 20u);
  for (const std::string& name : fixtures.cases("attention")) {
    const auto load = [&](const char* tensor) { return fixtures.tensor(name, tensor); };
    AttentionTensors expected{load("q"),           load("k"),          load("v"),          load("kappa"),
                              load("beta"),        load("chunk_bias"), load("dout"),       load("out"),
                              load("log_sum_exp"), load("dq"),         load("dk"),         load("dv"),
                              load("dkappa"),      load("dbeta"),      load("dchunk_bias")};
    const Shape shape = expected.q.shape();
    const AttentionCase c{shape[0], shape[1], shape[2], shape[3], config_of(fixtures.scalars(name))};
    for (const DType dtype : on_this_device({DType::f64, DType::f32})) {
      AttentionTensors ours = converted(expected, dtype);
      run_forward(*ops, c, ours);
      run_backward(*ops, c, ours);
      for (const auto& [tensor, x, reference] : results(c, ours, expected))
        EXPECT_LT(relative_error(*x, *reference), dtype == DType::f64 ? 1e-12 : 1e-5)
            << name << " " << tensor << " " << name_of(dtype);
    }
  }
}

}  // namespace
}  // namespace flasheva
