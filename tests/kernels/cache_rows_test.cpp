// What stands in a cache after prompts in segments and tokens one by one: the rows of the sequences taken
// whole, bit by bit. cache_test.cpp has the attention over it.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/ops.h"
#include "tests/support/tensors.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

constexpr std::int64_t S = 3, H = 2, T = 45, P = 3, R = 12, C = T / P;
const std::vector<std::int64_t> prompt_lengths{0, 33, 7};

struct RowsCase {
  DType dtype;
  std::int64_t d, rotary_half;
  bool chunked;
  Adapter adapter;
};

// rows (count) of `width` elements from row `from_row` on.
void copy_rows(TestTensor& to, std::int64_t to_row, const TestTensor& from, std::int64_t from_row,
               std::int64_t count, std::int64_t width) {
  for (std::int64_t i = 0; i < count * width; ++i) to.set(to_row * width + i, from.get(from_row * width + i));
}

class CacheRowsTest : public testing::TestWithParam<RowsCase> {
 protected:
  void SetUp() override {
    const auto [dtype, d, half, chunked, adapter] = GetParam();
    if (dtype == DType::f64) FLASHEVA_NEEDS_FLOAT64();
    std::mt19937_64 generator = generator_of_inputs(1);
    qkv_ = TestTensor::random(dtype, {S, T, 3 * H * d}, generator);
    if (half > 0)
      for (TestTensor* x : {&cosine_, &sine_})
        *x = TestTensor::random(accumulation_type(dtype), {T, half}, generator);
    for (TestTensor* x : {&q_, &k_, &v_}) *x = TestTensor(dtype, {S, H, T, d});
    for (TestTensor* x : {&keys_, &values_}) *x = TestTensor(dtype, {S, H, R, d});
    if (!chunked) {
      ops_->qkv_rotary_forward(q_, k_, v_, qkv_, cosine_, sine_);
      return;
    }
    const double spread = 1 / std::sqrt(static_cast<double>(d));
    for (TestTensor* x : {&key_weight_, &query_weight_})
      *x = TestTensor::random(dtype, {d, d}, generator, spread);
    for (TestTensor* x : {&key_bias_, &query_bias_}) *x = TestTensor::random(dtype, {d}, generator);
    for (TestTensor* x : {&mu_, &phi_}) *x = TestTensor::random(dtype, {H, d}, generator);
    for (TestTensor* x : {&kappa_, &beta_, &cached_kappa_, &cached_beta_})
      *x = TestTensor(dtype, {S, H, C, d});
    queries_ = TestTensor(dtype, {S, H, P, d});
    ops_->qkv_summary_forward(q_, k_, v_, kappa_, beta_, qkv_, cosine_, sine_, parameters(), config());
  }

  EvaParameters parameters() {
    EvaParameters p;
    p.key_weight = key_weight_, p.key_bias = key_bias_;
    p.query_weight = query_weight_, p.query_bias = query_bias_;
    p.mu = mu_, p.phi = phi_;
    return p;
  }
  ChunkSummaryConfig config() const { return {P, GetParam().adapter, Proposal::qk, {}}; }
  LayerCache cache() { return {keys_, values_, queries_, cached_kappa_, cached_beta_}; }

  // Tokens first .. first + t - 1 of a sequence; t is a multiple of P but at the end.
  void store(std::int64_t s, std::int64_t first, std::int64_t t) {
    const auto [dtype, d, half, chunked, adapter] = GetParam();
    TestTensor q(dtype, {1, H, t, d}), k = q, v = q, kappa, beta;
    const std::int64_t chunks = chunked ? t / P : 0, old = std::min(first, R - 1);
    if (chunks > 0) kappa = beta = TestTensor(dtype, {1, H, chunks, d});
    TestTensor keys(dtype, {1, H, old + t, d}), values = keys;
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t head = s * H + h;
      copy_rows(q, h * t, q_, head * T + first, t, d);
      copy_rows(k, h * t, k_, head * T + first, t, d);
      copy_rows(v, h * t, v_, head * T + first, t, d);
      if (chunks == 0) continue;
      copy_rows(kappa, h * chunks, kappa_, head * C + first / P, chunks, d);
      copy_rows(beta, h * chunks, beta_, head * C + first / P, chunks, d);
    }
    ops_->cache_window(keys, values, cache(), s, first, k, v);
    for (std::int64_t h = 0; h < H; ++h) {
      expect_rows(keys, h * (old + t), k_, (s * H + h) * T + first - old, old + t);
      expect_rows(values, h * (old + t), v_, (s * H + h) * T + first - old, old + t);
    }
    ops_->cache_store(cache(), s, first, q, k, v, kappa, beta);
  }

  // Token positions[i] of sequences[i], for every i.
  void append(const std::vector<std::int64_t>& sequences, const std::vector<std::int64_t>& positions) {
    const auto [dtype, d, half, chunked, adapter] = GetParam();
    const auto N = static_cast<std::int64_t>(sequences.size());
    TestTensor qkv(dtype, {N, 3 * H * d}), q(dtype, {N, H, d});
    TestTensor sequence_ids(DType::i32, {N}), position_ids(DType::i32, {N});
    for (std::int64_t i = 0; i < N; ++i) {
      const auto s = sequences[static_cast<std::size_t>(i)], n = positions[static_cast<std::size_t>(i)];
      sequence_ids.set(i, static_cast<double>(s));
      position_ids.set(i, static_cast<double>(n));
      copy_rows(qkv, i, qkv_, s * T + n, 1, 3 * H * d);
    }
    const CachePlaces places{sequence_ids, position_ids};
    ops_->cache_append(q, cache(), qkv, cosine_, sine_, places);
    if (chunked) ops_->chunk_summary_cached(cache(), parameters(), config(), places);
    for (std::int64_t i = 0; i < N; ++i)
      for (std::int64_t h = 0; h < H; ++h)
        expect_rows(
            q, i * H + h, q_,
            (sequences[static_cast<std::size_t>(i)] * H + h) * T + positions[static_cast<std::size_t>(i)], 1);
  }

  void expect_rows(const TestTensor& x, std::int64_t row, const TestTensor& expected,
                   std::int64_t expected_row, std::int64_t count) {
    const std::int64_t d = GetParam().d;
    for (std::int64_t i = 0; i < count * d; ++i)
      ASSERT_EQ(x.get(row * d + i), expected.get(expected_row * d + i)) << "element " << i;
  }

  // Of a sequence of which `length` tokens are cached.
  void expect_cached(std::int64_t s, std::int64_t length) {
    for (std::int64_t head = s * H; head < (s + 1) * H; ++head) {
      for (std::int64_t n = std::max<std::int64_t>(0, length - R); n < length; ++n) {
        expect_rows(keys_, head * R + n % R, k_, head * T + n, 1);
        expect_rows(values_, head * R + n % R, v_, head * T + n, 1);
      }
      if (!GetParam().chunked) continue;
      for (std::int64_t n = length / P * P; n < length; ++n)
        expect_rows(queries_, head * P + n % P, q_, head * T + n, 1);
      expect_rows(cached_kappa_, head * C, kappa_, head * C, length / P);
      expect_rows(cached_beta_, head * C, beta_, head * C, length / P);
    }
  }

  std::unique_ptr<Ops> ops_ = make_test_ops();
  TestTensor qkv_, cosine_, sine_, q_, k_, v_, kappa_, beta_;  // of whole sequences
  TestTensor key_weight_, key_bias_, query_weight_, query_bias_, mu_, phi_;
  TestTensor keys_, values_, queries_, cached_kappa_, cached_beta_;
};

TEST_P(CacheRowsTest, AreThoseOfWholeSequences) {
  constexpr std::int64_t segment = 15;
  std::vector<std::int64_t> next = prompt_lengths;
  for (std::int64_t s = 0; s < S; ++s) {
    const std::int64_t length = next[static_cast<std::size_t>(s)];
    for (std::int64_t first = 0; first < length; first += segment)
      store(s, first, std::min(segment, length - first));
    expect_cached(s, length);
  }
  for (std::int64_t turn = 0;; ++turn) {
    std::vector<std::int64_t> sequences, positions;
    for (std::int64_t i = 0; i < S; ++i) {
      const std::int64_t s = (i + turn) % S;
      if (next[static_cast<std::size_t>(s)] == T) continue;
      sequences.push_back(s);
      positions.push_back(next[static_cast<std::size_t>(s)]++);
    }
    if (sequences.empty()) break;
    append(sequences, positions);
    for (const std::int64_t s : sequences) expect_cached(s, next[static_cast<std::size_t>(s)]);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, CacheRowsTest,
                         testing::Values(RowsCase{DType::f64, 5, 2, true, Adapter::linear},
                                         RowsCase{DType::f32, 8, 4, true, Adapter::learned},
                                         RowsCase{DType::f32, 20, 0, false, Adapter::none},
                                         RowsCase{DType::bf16, 64, 16, true, Adapter::linear},
                                         RowsCase{DType::bf16, 9, 3, true, Adapter::none},
                                         RowsCase{DType::f16, 64, 16, true, Adapter::linear}),
                         [](const auto& info) {
                           return std::string(name_of(info.param.dtype)) + "_d_" +
                                  std::to_string(info.param.d);
                         });

// On a GPU it shows when the results come back.
TEST(CacheRowsTest, RefusesTokensThatNoCacheHasRoomFor) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TestTensor rows = TestTensor::zeros(DType::f32, {2, 1, 4, 6}), values = rows,
             qkv = TestTensor::zeros(DType::f32, {1, 18}), q(DType::f32, {1, 1, 6}),
             table = TestTensor::zeros(DType::f32, {9, 3}), sequence(DType::i32, {1}), position = sequence;
  const LayerCache cache{rows, values, {}, {}, {}};
  for (const auto& [s, n] : {std::pair{2, 0}, {-1, 0}, {0, -1}, {0, 9}}) {
    sequence.set(0, s), position.set(0, n);
    EXPECT_THROW(ops->cache_append(q, cache, qkv, table, table, {sequence, position}), std::logic_error);
  }
  sequence.set(0, 1), position.set(0, 8);
  EXPECT_NO_THROW(ops->cache_append(q, cache, qkv, table, table, {sequence, position}));
}

}  // namespace
}  // namespace flasheva
