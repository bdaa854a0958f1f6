// What the tests of attention share: a case, its inputs, both passes and the results to compare.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/attention_reference.h"
#include "tests/support/tensors.h"

namespace flasheva {

struct AttentionCase {
  std::int64_t B, H, T, d;
  AttentionConfig config;

  std::int64_t chunks() const { return config.visibility.chunks(T); }
};

inline std::string describe(const AttentionCase& c) {
  return "B " + std::to_string(c.B) + " H " + std::to_string(c.H) + " T " + std::to_string(c.T) + " d " +
         std::to_string(c.d) + " " + describe(c.config);
}

inline AttentionTensors random_inputs(const AttentionCase& c, DType dtype, unsigned seed) {
  std::mt19937_64 generator = generator_of_inputs(seed);
  const Shape tokens{c.B, c.H, c.T, c.d}, chunks{c.B, c.H, c.chunks(), c.d};
  AttentionTensors t;
  for (TestTensor* x : {&t.q, &t.k, &t.v}) *x = TestTensor::random(dtype, tokens, generator);
  if (c.chunks() > 0)
    for (TestTensor* x : {&t.kappa, &t.beta}) *x = TestTensor::random(dtype, chunks, generator);
  if (c.config.chunk_bias == ChunkBias::learned) t.chunk_bias = TestTensor::random(dtype, {c.H}, generator);
  t.dout = TestTensor::random(dtype, {c.B, c.T, c.H * c.d}, generator);
  return t;
}

inline void run_forward(Ops& ops, const AttentionCase& c, AttentionTensors& t) {
  const DType dtype = t.q.view().dtype;
  t.out = TestTensor(dtype, {c.B, c.T, c.H * c.d});
  t.log_sum_exp = TestTensor(accumulation_type(dtype), {c.B, c.H, c.T});
  ops.attention_forward(t.out, t.log_sum_exp, t.q, t.k, t.v, t.kappa, t.beta, t.chunk_bias, c.config);
}

inline void run_backward(Ops& ops, const AttentionCase& c, AttentionTensors& t) {
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
inline std::vector<Compared> results(const AttentionCase& c, const AttentionTensors& ours,
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

inline AttentionTensors converted(AttentionTensors t, DType dtype) {
  for (TestTensor* x : {&t.q, &t.k, &t.v, &t.kappa, &t.beta, &t.chunk_bias, &t.dout})
    if (x->view().data) *x = x->converted(dtype);
  return t;
}

}  // namespace flasheva
