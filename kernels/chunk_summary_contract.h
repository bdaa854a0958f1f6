// What a call of the chunk summaries works on, and its preconditions, for every device.
#pragma once

#include "kernels/dispatch.h"
#include "kernels/ops.h"

namespace flasheva::summary {

// The sizes of a call and its variant.
struct Problem {
  std::int64_t B, H, T, C, P, d;
  ChunkSummaryConfig config;

  bool adapted() const {
    return config.adapter == Adapter::linear || config.adapter == Adapter::linear_layernorm;
  }
  bool layernorm() const { return config.adapter == Adapter::linear_layernorm; }
  bool learned() const { return config.adapter == Adapter::learned; }
  bool uses_queries() const { return !learned() && config.proposal == Proposal::qk; }
};

inline void check_parameters(Device device, const EvaParameters& p, const Problem& problem, DType dtype) {
  const std::int64_t H = problem.H, d = problem.d;
  const auto matches = [=](const Tensor& x, const Shape& shape) {
    return matches_on(device, x, dtype, shape);
  };
  const auto check_adapter = [&](Tensor weight, Tensor bias, Tensor norm_weight, Tensor norm_bias) {
    FLASHEVA_CHECK(matches(weight, {d, d}) && matches(bias, {d}));
    FLASHEVA_CHECK(!problem.layernorm() || (matches(norm_weight, {d}) && matches(norm_bias, {d})));
  };
  if (problem.adapted()) check_adapter(p.key_weight, p.key_bias, p.key_norm_weight, p.key_norm_bias);
  if (problem.adapted() && problem.uses_queries())
    check_adapter(p.query_weight, p.query_bias, p.query_norm_weight, p.query_norm_bias);
  if (problem.learned()) FLASHEVA_CHECK(matches(p.mu, {H, d}) && matches(p.phi, {H, d}));
}

inline Problem checked_problem(Device device, Tensor kappa, Tensor beta, Tensor q, Tensor k, Tensor v,
                               const EvaParameters& parameters, const ChunkSummaryConfig& config) {
  FLASHEVA_CHECK(config.chunk > 0 && q.shape.rank() == 4 && q.size() > 0);
  for (Tensor x : {q, k, v}) FLASHEVA_CHECK(matches_on(device, x, q.dtype, q.shape));
  const std::int64_t B = q.dim(0), H = q.dim(1), T = q.dim(2), C = T / config.chunk, d = q.dim(3);
  const Problem problem{B, H, T, C, config.chunk, d, config};
  for (Tensor x : {kappa, beta}) FLASHEVA_CHECK(C == 0 || matches_on(device, x, q.dtype, {B, H, C, d}));
  check_parameters(device, parameters, problem, q.dtype);
  FLASHEVA_CHECK(!config.noise.enabled || matches_on(device, config.noise.place, DType::i32, {2}));
  return problem;
}

inline void check_gradients(Device device, const EvaParameters& gradients, const EvaParameters& parameters) {
  const auto check = [=](Tensor gradient, Tensor parameter) {
    FLASHEVA_CHECK(!gradient ||
                   matches_on(device, gradient, accumulation_type(parameter.dtype), parameter.shape));
  };
  check(gradients.key_weight, parameters.key_weight);
  check(gradients.key_bias, parameters.key_bias);
  check(gradients.key_norm_weight, parameters.key_norm_weight);
  check(gradients.key_norm_bias, parameters.key_norm_bias);
  check(gradients.query_weight, parameters.query_weight);
  check(gradients.query_bias, parameters.query_bias);
  check(gradients.query_norm_weight, parameters.query_norm_weight);
  check(gradients.query_norm_bias, parameters.query_norm_bias);
  check(gradients.mu, parameters.mu);
  check(gradients.phi, parameters.phi);
}

}  // namespace flasheva::summary
