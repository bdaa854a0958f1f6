// Attention over a cache of more keys than a block of a GPU takes (128): they are split between blocks, and
// the parts merged. The sequences are one and the same, each cached up to a token of its own.
#include <gtest/gtest.h>

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

constexpr std::int64_t H = 2, T = 260;
constexpr std::int64_t positions[] = {0, 1, 63, 127, 128, 129, 200, 259};
constexpr auto S = static_cast<std::int64_t>(std::size(positions));

void copy_row(TestTensor& to, std::int64_t to_row, const TestTensor& from, std::int64_t from_row,
              std::int64_t width) {
  for (std::int64_t i = 0; i < width; ++i) to.set(to_row * width + i, from.get(from_row * width + i));
}

// What the query at positions[s] sees, for every s. The rest stays NaN, so that reading it shows.
struct Cache {
  TestTensor keys, values, queries, kappa, beta;

  Cache(AttentionTensors& t, const Visibility& visibility) {
    const DType dtype = t.q.view().dtype;
    const std::int64_t R = visibility.cache_rows(T), C = visibility.chunks(T), d = t.q.shape()[3];
    keys = values = TestTensor(dtype, {S, H, R, d});
    if (C > 0) queries = TestTensor(dtype, {S, H, visibility.chunk, d});
    if (C > 0) kappa = beta = TestTensor(dtype, {S, H, C, d});
    for (std::int64_t s = 0; s < S; ++s)
      for (std::int64_t h = 0; h < H; ++h) {
        for (std::int64_t m = 0; m < T; ++m) {
          if (!sees_token(visibility, positions[s], m)) continue;
          copy_row(keys, (s * H + h) * R + m % R, t.k, h * T + m, d);
          copy_row(values, (s * H + h) * R + m % R, t.v, h * T + m, d);
        }
        for (std::int64_t c = 0; c < C; ++c) {
          if (!sees_chunk(visibility, positions[s], c)) continue;
          copy_row(kappa, (s * H + h) * C + c, t.kappa, h * C + c, d);
          copy_row(beta, (s * H + h) * C + c, t.beta, h * C + c, d);
        }
      }
  }
  LayerCache view() { return {keys, values, queries, kappa, beta}; }
};

// Queries (S, H, d) at the positions.
TestTensor newest_queries(AttentionTensors& t) {
  const std::int64_t d = t.q.shape()[3];
  TestTensor q(t.q.view().dtype, {S, H, d});
  for (std::int64_t s = 0; s < S; ++s)
    for (std::int64_t h = 0; h < H; ++h) copy_row(q, s * H + h, t.q, h * T + positions[s], d);
  return q;
}

// Rows (S, H d) of out (1, T, H d).
TestTensor newest_rows(const TestTensor& out) {
  const std::int64_t D = out.shape()[2];
  TestTensor rows(DType::f64, {S, D});
  for (std::int64_t s = 0; s < S; ++s) copy_row(rows, s, out, positions[s], D);
  return rows;
}

class LongCacheTest : public testing::TestWithParam<DType> {
 protected:
  void expect_agreement(const AttentionConfig& config, std::int64_t d) {
    const DType dtype = GetParam();
    AttentionTensors t = random_inputs({1, H, T, d, config}, dtype, 3);
    t.dout = {};
    Cache cache(t, config.visibility);
    TestTensor q = newest_queries(t), out(dtype, {S, H * d}), sequences(DType::i32, {S}), tokens = sequences;
    for (std::int64_t s = 0; s < S; ++s) {
      sequences.set(s, static_cast<double>(s));
      tokens.set(s, static_cast<double>(positions[s]));
    }
    ops_->attention_cached(out, q, cache.view(), t.chunk_bias, config, {sequences, tokens});

    AttentionTensors exact = t;
    reference_attention(exact, config);
    const TestTensor expected = newest_rows(exact.out);
    double bound = dtype == DType::f64 ? 1e-13 : 1e-6;
    if (is_low_precision(dtype)) {  // twice the error of the plain formula
      AttentionTensors plain = t;
      reference_attention(plain, config, RoundTo{dtype});
      bound = 2 * relative_error(newest_rows(plain.out), expected);
    }
    EXPECT_LE(relative_error(out, expected), bound) << describe(config) << " d " << d;
  }

 private:
  std::unique_ptr<Ops> ops_ = make_test_ops();
};

TEST_P(LongCacheTest, GivesWhatTheDefinitionGives) {
  if (GetParam() == DType::f64) FLASHEVA_NEEDS_FLOAT64();
  const AttentionConfig configs[] = {
      {full()},
      {sliding(200)},
      {eva(160, 4, WindowKind::sliding), ChunkBias::learned},
      {eva(64, 2, WindowKind::block, ChunkVisibility::all_past), ChunkBias::log_chunk}};
  for (const AttentionConfig& config : configs)
    for (std::int64_t d : {5, 24, 64, 136}) expect_agreement(config, d);  // rows in vectors of several widths
}

INSTANTIATE_TEST_SUITE_P(Types, LongCacheTest,
                         testing::Values(DType::f64, DType::f32, DType::bf16, DType::f16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

}  // namespace
}  // namespace flasheva
