// Attention of all kinds against a plain dense computation in float64.
#include <gtest/gtest.h>

#include <string>

#include "kernels/ops.h"
#include "tests/kernels/attention_reference.h"
#include "tests/support/tensors.h"

namespace flasheva {
namespace {

struct Case {
  std::int64_t B, H, T, d;
  AttentionConfig config;

  std::int64_t chunks() const { return config.visibility.chunks(T); }
};

std::string describe(const Case& c) {
  const Visibility& v = c.config.visibility;
  return "B " + std::to_string(c.B) + " H " + std::to_string(c.H) + " T " + std::to_string(c.T) + " d " +
         std::to_string(c.d) + " W " + std::to_string(v.window) + " P " + std::to_string(v.chunk) + " kind " +
         std::to_string(static_cast<int>(v.kind)) +
         (v.window_kind == WindowKind::block ? " block" : " sliding") +
         (v.chunk_visibility == ChunkVisibility::all_past ? " all_past" : " outside_window") + " bias " +
         std::to_string(static_cast<int>(c.config.chunk_bias));
}

Visibility full() { return {}; }
Visibility sliding(std::int64_t window) { return {.kind = AttentionKind::sliding, .window = window}; }
Visibility eva(std::int64_t window, std::int64_t chunk, WindowKind window_kind = WindowKind::block,
               ChunkVisibility chunk_visibility = ChunkVisibility::outside_window) {
  return {AttentionKind::eva, window_kind, chunk_visibility, window, chunk};
}

// Every kind and variant, with windows that divide nothing, P = W, P = 1 and windows longer than any sequence
// here.
std::vector<AttentionConfig> all_configs() {
  std::vector<AttentionConfig> configs{{full()}, {sliding(1)}, {sliding(5)}, {sliding(16)}, {sliding(100)}};
  const std::pair<std::int64_t, std::int64_t> geometries[] = {{4, 2}, {7, 7},   {12, 3}, {16, 8},
                                                              {5, 1}, {40, 20}, {128, 4}};
  for (const auto& [window, chunk] : geometries)
    for (WindowKind window_kind : {WindowKind::block, WindowKind::sliding})
      for (ChunkVisibility visible : {ChunkVisibility::outside_window, ChunkVisibility::all_past})
        for (ChunkBias bias : {ChunkBias::none, ChunkBias::log_chunk, ChunkBias::learned})
          configs.push_back({eva(window, chunk, window_kind, visible), bias});
  return configs;
}

AttentionTensors random_inputs(const Case& c, DType dtype, unsigned seed) {
  std::mt19937_64 generator(seed);
  const Shape tokens{c.B, c.H, c.T, c.d}, chunks{c.B, c.H, c.chunks(), c.d};
  AttentionTensors t;
  for (TestTensor* x : {&t.q, &t.k, &t.v}) *x = TestTensor::random(dtype, tokens, generator);
  if (c.chunks() > 0)
    for (TestTensor* x : {&t.kappa, &t.beta}) *x = TestTensor::random(dtype, chunks, generator);
  if (c.config.chunk_bias == ChunkBias::learned) t.chunk_bias = TestTensor::random(dtype, {c.H}, generator);
  t.dout = TestTensor::random(dtype, {c.B, c.T, c.H * c.d}, generator);
  return t;
}

void run_forward(Ops& ops, const Case& c, AttentionTensors& t) {
  const DType dtype = t.q.view().dtype;
  t.out = TestTensor(dtype, {c.B, c.T, c.H * c.d});
  t.log_sum_exp = TestTensor(accumulation_type(dtype), {c.B, c.H, c.T});
  ops.attention_forward(t.out, t.log_sum_exp, t.q, t.k, t.v, t.kappa, t.beta, t.chunk_bias, c.config);
}

void run_backward(Ops& ops, const Case& c, AttentionTensors& t) {
  const DType dtype = t.q.view().dtype;
  for (TestTensor* x : {&t.dq, &t.dk, &t.dv}) *x = TestTensor(dtype, t.q.shape());
  if (c.chunks() > 0)
    for (TestTensor* x : {&t.dkappa, &t.dbeta}) *x = TestTensor(dtype, t.kappa.shape());
  if (c.config.chunk_bias == ChunkBias::learned)
    t.dchunk_bias = TestTensor::zeros(accumulation_type(dtype), {c.H});
  ops.attention_backward(t.dq, t.dk, t.dv, t.dkappa, t.dbeta, t.dchunk_bias, t.dout, t.out, t.log_sum_exp,
                         t.q, t.k, t.v, t.kappa, t.beta, t.chunk_bias, c.config);
}

// The results of both, named; the chunk's only where there are chunks.
struct Compared {
  const char* name;
  const TestTensor *ours, *reference;
};
std::vector<Compared> results(const Case& c, const AttentionTensors& ours,
                              const AttentionTensors& reference) {
  std::vector<Compared> all{{"out", &ours.out, &reference.out},
                            {"log_sum_exp", &ours.log_sum_exp, &reference.log_sum_exp},
                            {"dq", &ours.dq, &reference.dq},
                            {"dk", &ours.dk, &reference.dk},
                            {"dv", &ours.dv, &reference.dv}};
  if (c.chunks() > 0) {
    all.push_back({"dkappa", &ours.dkappa, &reference.dkappa});
    all.push_back({"dbeta", &ours.dbeta, &reference.dbeta});
    if (c.config.chunk_bias == ChunkBias::learned)
      all.push_back({"dchunk_bias", &ours.dchunk_bias, &reference.dchunk_bias});
  }
  return all;
}

TEST(Attention, MatchesTheDefinitionInFloat64AtEveryLength) {
  const auto ops = make_cpu_ops();
  for (const AttentionConfig& config : all_configs())
    for (std::int64_t T : {1, 2, 3, 4, 7, 8, 11, 15, 16, 17, 23, 31, 40, 41, 63, 64, 65, 70}) {
      const Case c{1, 2, T, 3, config};
      AttentionTensors ours = random_inputs(c, DType::f64, 1), reference = ours;
      run_forward(*ops, c, ours);
      run_backward(*ops, c, ours);
      reference_attention(reference, config);
      for (const auto& [name, x, expected] : results(c, ours, reference))
        ASSERT_LT(relative_error(*x, *expected), 1e-12) << name << ": " << describe(c);
    }
}

}  // namespace
}  // namespace flasheva
