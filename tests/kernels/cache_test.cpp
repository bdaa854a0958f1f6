// Attention over a cache against the same sequences taken whole: prompts in segments, then token by token,
// sequences of different lengths side by side. What was never written stays NaN, so that reading it shows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/attention_reference.h"
#include "tests/kernels/chunk_summary_reference.h"
#include "tests/support/tensors.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

constexpr std::int64_t S = 3, H = 2, T = 45;  // sequences, heads, tokens of each
constexpr std::int64_t rotary_half = 2;
const std::vector<std::int64_t> prompt_lengths{0, 33, 7};

// Sequences taken whole by the operations of training, and their attention by the definition.
struct Whole {
  AttentionTensors t;       // q, k, v (S, H, T, d), kappa, beta, in the type under test; float64 results
  TestTensor qkv;           // (S, T, 3D)
  TestTensor cosine, sine;  // (T, R)
  EvaTensors parameters;
};

EvaTensors random_parameters(DType dtype, const ChunkSummaryConfig& config, std::int64_t d,
                             std::mt19937_64& generator) {
  EvaTensors p;
  if (config.adapter == Adapter::learned)
    for (TestTensor* x : {&p.mu, &p.phi}) *x = TestTensor::random(dtype, {H, d}, generator);
  if (config.adapter == Adapter::linear) {
    for (TestTensor* x : {&p.key_weight, &p.query_weight})
      *x = TestTensor::random(dtype, {d, d}, generator, 1 / std::sqrt(static_cast<double>(d)));
    for (TestTensor* x : {&p.key_bias, &p.query_bias}) *x = TestTensor::random(dtype, {d}, generator);
  }
  return p;
}

Whole whole_sequences(Ops& ops, DType dtype, std::int64_t d, const AttentionConfig& config,
                      const ChunkSummaryConfig& summary, unsigned seed) {
  std::mt19937_64 generator = generator_of_inputs(seed);
  Whole w;
  w.qkv = TestTensor::random(dtype, {S, T, 3 * H * d}, generator);
  for (TestTensor* x : {&w.cosine, &w.sine})
    *x = TestTensor::random(accumulation_type(dtype), {T, rotary_half}, generator);
  for (TestTensor* x : {&w.t.q, &w.t.k, &w.t.v}) *x = TestTensor(dtype, {S, H, T, d});
  ops.qkv_rotary_forward(w.t.q, w.t.k, w.t.v, w.qkv, w.cosine, w.sine);
  w.parameters = random_parameters(dtype, summary, d, generator);
  if (config.chunk_bias == ChunkBias::learned) w.t.chunk_bias = TestTensor::random(dtype, {H}, generator);
  if (const std::int64_t C = config.visibility.chunks(T); C > 0) {
    for (TestTensor* x : {&w.t.kappa, &w.t.beta}) *x = TestTensor(dtype, {S, H, C, d});
    ops.qkv_summary_forward(w.t.q, w.t.k, w.t.v, w.t.kappa, w.t.beta, w.qkv, w.cosine, w.sine,
                            w.parameters.view(), summary);
  }
  reference_attention(w.t, config);
  return w;
}

// The cache under test and what it gives: out (S, T, D), row by row as it was computed.
class Cached {
 public:
  Cached(Ops& ops, DType dtype, std::int64_t d, const AttentionConfig& config,
         const ChunkSummaryConfig& summary, Whole& whole)
      : ops_(ops), dtype_(dtype), d_(d), config_(config), summary_(summary), whole_(whole) {
    const Visibility& visibility = config.visibility;
    keys_ = TestTensor(dtype, {S, H, visibility.cache_rows(T), d}), values_ = keys_;
    if (visibility.kind == AttentionKind::eva) queries_ = TestTensor(dtype, {S, H, visibility.chunk, d});
    if (visibility.chunks(T) > 0)
      for (TestTensor* x : {&kappa_, &beta_}) *x = TestTensor(dtype, {S, H, visibility.chunks(T), d});
    out = TestTensor(dtype, {S, T, H * d});
  }

  // Tokens 0 .. length - 1 of a sequence, `segment` at a time.
  void prefill(std::int64_t sequence, std::int64_t length, std::int64_t segment) {
    for (std::int64_t first = 0; first < length; first += segment)
      prefill_segment(sequence, first, std::min(segment, length - first));
  }

  // Token positions[i] of sequences[i], for every i.
  void decode(const std::vector<std::int64_t>& sequences, const std::vector<std::int64_t>& positions) {
    const auto N = static_cast<std::int64_t>(sequences.size());
    TestTensor qkv(dtype_, {N, 3 * H * d_}), q(dtype_, {N, H, d_}), result(dtype_, {N, H * d_});
    TestTensor sequence_ids(DType::i32, {N}), position_ids(DType::i32, {N});
    for (std::int64_t i = 0; i < N; ++i) {
      const auto s = sequences[static_cast<std::size_t>(i)], n = positions[static_cast<std::size_t>(i)];
      sequence_ids.set(i, static_cast<double>(s));
      position_ids.set(i, static_cast<double>(n));
      copy_row(qkv, i, whole_.qkv, s * T + n, 3 * H * d_);
    }
    const CachePlaces places{sequence_ids, position_ids};
    ops_.cache_append(q, view(), qkv, whole_.cosine, whole_.sine, places);
    if (config_.visibility.kind == AttentionKind::eva)
      ops_.chunk_summary_cached(view(), whole_.parameters.view(), summary_, places);
    ops_.attention_cached(result, q, view(), whole_.t.chunk_bias, config_, places);
    for (std::int64_t i = 0; i < N; ++i)
      copy_row(out, sequences[static_cast<std::size_t>(i)] * T + positions[static_cast<std::size_t>(i)],
               result, i, H * d_);
  }

  LayerCache view() { return {keys_, values_, queries_, kappa_, beta_}; }
  const TestTensor& kappa() const { return kappa_; }
  const TestTensor& beta() const { return beta_; }

  TestTensor out;

 private:
  static void copy_row(TestTensor& to, std::int64_t to_row, const TestTensor& from, std::int64_t from_row,
                       std::int64_t width) {
    for (std::int64_t i = 0; i < width; ++i) to.set(to_row * width + i, from.get(from_row * width + i));
  }

  // Tokens first .. first + t - 1 of one sequence, of x (S, H, T, d).
  TestTensor piece(const TestTensor& x, std::int64_t sequence, std::int64_t first, std::int64_t t) const {
    TestTensor out(dtype_, {1, H, t, d_});
    for (std::int64_t h = 0; h < H; ++h)
      for (std::int64_t i = 0; i < t; ++i)
        copy_row(out, h * t + i, x, (sequence * H + h) * T + first + i, d_);
    return out;
  }

  void prefill_segment(std::int64_t sequence, std::int64_t first, std::int64_t t) {
    TestTensor q = piece(whole_.t.q, sequence, first, t), k = piece(whole_.t.k, sequence, first, t),
               v = piece(whole_.t.v, sequence, first, t), kappa, beta;
    if (const std::int64_t chunks = config_.visibility.chunks(t); chunks > 0) {
      for (TestTensor* x : {&kappa, &beta}) *x = TestTensor(dtype_, {1, H, chunks, d_});
      TestTensor qkv(dtype_, {1, t, 3 * H * d_});
      ops_.qkv_rotary_backward(qkv, q, k, v, {}, {});  // merges them
      ops_.qkv_summary_forward(q, k, v, kappa, beta, qkv, {}, {}, whole_.parameters.view(), summary_);
    }
    const std::int64_t old = first - config_.visibility.first_token(first);
    TestTensor keys(dtype_, {1, H, old + t, d_}), values = keys;
    ops_.cache_window(keys, values, view(), sequence, first, k, v);
    ops_.cache_store(view(), sequence, first, q, k, v, kappa, beta);
    AttentionConfig config = config_;
    config.first_query = first;
    config.first_key = first - old;
    TestTensor result(dtype_, {1, t, H * d_}), log_sum_exp(accumulation_type(dtype_), {1, H, t});
    ops_.attention_forward(result, log_sum_exp, q, keys, values, of_sequence(kappa_, sequence),
                           of_sequence(beta_, sequence), whole_.t.chunk_bias, config);
    for (std::int64_t i = 0; i < t; ++i) copy_row(out, sequence * T + first + i, result, i, H * d_);
  }

  static Tensor of_sequence(TestTensor& x, std::int64_t sequence) {
    Tensor one = x;
    if (!one) return {};
    const std::int64_t bytes = static_cast<std::int64_t>(one.bytes()) / S;
    one.data = static_cast<std::byte*>(one.data) + sequence * bytes;
    one.shape = {1, H, one.dim(2), one.dim(3)};
    return one;
  }

  Ops& ops_;
  DType dtype_;
  std::int64_t d_;
  AttentionConfig config_;
  ChunkSummaryConfig summary_;
  Whole& whole_;
  TestTensor keys_, values_, queries_, kappa_, beta_;
};

// All tokens of all sequences: prompts of different lengths, then a token of each, in an order that turns,
// until each has ended.
void run(Cached& cached, std::int64_t segment) {
  std::vector<std::int64_t> next = prompt_lengths;
  for (std::int64_t s = 0; s < S; ++s) cached.prefill(s, next[static_cast<std::size_t>(s)], segment);
  for (std::int64_t step = 0; step < T; ++step) {
    std::vector<std::int64_t> sequences, positions;
    for (std::int64_t i = 0; i < S; ++i) {
      const std::int64_t s = (i + step) % S;
      if (next[static_cast<std::size_t>(s)] == T) continue;
      sequences.push_back(s);
      positions.push_back(next[static_cast<std::size_t>(s)]++);
    }
    if (!sequences.empty()) cached.decode(sequences, positions);
  }
}

// A segment no longer than the prompts, in whole chunks.
std::int64_t segment_of(const AttentionConfig& config) {
  const std::int64_t chunk = std::max<std::int64_t>(1, config.visibility.chunk);
  return (10 + chunk - 1) / chunk * chunk;
}

void expect_same_elements(const TestTensor& a, const TestTensor& b) {
  for (std::int64_t i = 0; i < a.size(); ++i) ASSERT_EQ(a.get(i), b.get(i)) << "element " << i;
}

class CacheTest : public testing::TestWithParam<DType> {};

TEST_P(CacheTest, GivesWhatWholeSequencesGive) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  const DType dtype = GetParam();
  if (dtype == DType::f64) FLASHEVA_NEEDS_FLOAT64();
  // The simulator computes slowly, and copies to a GPU and back take their time: there every seventh of EVA's
  // variants, which come in twelves, so that each window, visibility and bias has its turn.
  const unsigned every = device_is_simulated() || device_is_gpu() ? 7 : 1;
  unsigned seed = 0, tried = 0;
  for (const AttentionConfig& config : all_configs()) {
    if (config.visibility.kind == AttentionKind::eva && ++tried % every != 0) continue;
    const std::int64_t d = seed % 5 == 0 ? 64 : 5;
    SCOPED_TRACE(describe(config) + " d " + std::to_string(d));
    const ChunkSummaryConfig summary{
        config.visibility.chunk, seed % 2 == 0 ? Adapter::linear : Adapter::learned, Proposal::qk, {}};
    Whole whole = whole_sequences(*ops, dtype, d, config, summary, ++seed);
    Cached cached(*ops, dtype, d, config, summary, whole);
    run(cached, segment_of(config));
    double bound = dtype == DType::f64 ? 1e-13 : 1e-6;
    if (is_low_precision(dtype)) {  // twice the error of the plain formula
      AttentionTensors plain = whole.t;
      reference_attention(plain, config, RoundTo{dtype});
      bound = 2 * relative_error(plain.out, whole.t.out);
    }
    ASSERT_LE(relative_error(cached.out, whole.t.out), bound);
    if (config.visibility.chunks(T) == 0) continue;
    expect_same_elements(cached.kappa(), whole.t.kappa);
    expect_same_elements(cached.beta(), whole.t.beta);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, CacheTest, testing::Values(DType::f64, DType::f32, DType::bf16, DType::f16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

// A sequence gets the same bits whatever is decoded beside it.
TEST(CacheTest, DoesNotDependOnTheBatch) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  const AttentionConfig config{eva(12, 3, WindowKind::sliding), ChunkBias::log_chunk};
  const ChunkSummaryConfig summary{3, Adapter::linear, Proposal::qk, {}};
  Whole whole = whole_sequences(*ops, DType::f32, 64, config, summary, 1);
  Cached together(*ops, DType::f32, 64, config, summary, whole), alone = together;
  run(together, 12);
  for (std::int64_t s = 0; s < S; ++s) {
    alone.prefill(s, prompt_lengths[static_cast<std::size_t>(s)], 12);
    for (std::int64_t n = prompt_lengths[static_cast<std::size_t>(s)]; n < T; ++n) alone.decode({s}, {n});
  }
  expect_same_elements(together.out, alone.out);
}

TEST(CacheTest, RefusesWhatDoesNotFit) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  const AttentionConfig config{eva(12, 3), ChunkBias::none};
  const ChunkSummaryConfig summary{3, Adapter::linear, Proposal::qk, {}};
  Whole whole = whole_sequences(*ops, DType::f32, 4, config, summary, 1);
  Cached cached(*ops, DType::f32, 4, config, summary, whole);
  TestTensor q(DType::f32, {1, H, 4}), out(DType::f32, {1, H * 4}), sequence(DType::i32, {1}),
      position(DType::i32, {1});
  sequence.set(0, S), position.set(0, 0);
  EXPECT_THROW(ops->attention_cached(out, q, cached.view(), {}, config, {sequence, position}),
               std::logic_error);
  sequence.set(0, 0), position.set(0, T + 100);  // more chunks than the cache has room for
  EXPECT_THROW(ops->attention_cached(out, q, cached.view(), {}, config, {sequence, position}),
               std::logic_error);
  TestTensor k(DType::f32, {1, H, 3, 4}), kappa(DType::f32, {1, H, 1, 4});
  EXPECT_THROW(ops->cache_store(cached.view(), 0, 2, k, k, k, kappa, kappa), std::logic_error);
  EXPECT_THROW(ops->cache_store(cached.view(), S, 0, k, k, k, kappa, kappa), std::logic_error);
  TestTensor window(DType::f32, {1, H, 13 + 3, 4});
  EXPECT_THROW(ops->cache_window(window, window, cached.view(), 0, 24, k, k), std::logic_error);
}

}  // namespace
}  // namespace flasheva
