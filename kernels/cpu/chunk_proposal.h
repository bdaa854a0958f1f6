// From the tokens of a block of chunks to its compressed keys and proposals (ops.h), for both passes:
//     kappa = A_k(kbar)        omega = mu + clip(eps),  mu = A_q(qbar) + kappa | kappa | 0
//     p = softmax of s (omega . k_m - |k_m|^2 / 2)
// Adapter learned: kappa = sum of softmax(mu . k_m) k_m, and omega = phi + clip(eps).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cpu/chunk_summary_problem.h"
#include "kernels/cpu/simd.h"
#include "kernels/philox.h"

namespace flasheva::summary {

// --- over the P tokens of a chunk ----------------------------------------------------------------------

// x (count) = its softmax; x has room for whole vectors.
template <class R>
void softmax(R* x, std::int64_t count) {
  constexpr int lanes = simd::lanes<R>;
  const R largest = *std::max_element(x, x + count);
  std::fill(x + count, x + cpu_attention::round_up(count, lanes), -std::numeric_limits<R>::infinity());
  simd::Vector<R> sums{};
  for (std::int64_t m = 0; m < count; m += lanes) {
    const auto e = simd::exp(simd::load(x + m) - largest);
    sums += e;
    simd::store(x + m, e);
  }
  const R scale = 1 / simd::sum(sums);
  for (std::int64_t m = 0; m < count; ++m) x[m] *= scale;
}

// p (count) and its gradient dp: dp becomes the gradient of the logits.
template <class R>
void softmax_backward(R* dp, const R* p, std::int64_t count) {
  R mean = 0;
  for (std::int64_t m = 0; m < count; ++m) mean += p[m] * dp[m];
  for (std::int64_t m = 0; m < count; ++m) dp[m] = p[m] * (dp[m] - mean);
}

// A block of chunks of one head.
struct ChunkBlock {
  std::int64_t b, h, first, count;
};

inline ChunkBlock chunk_block_at(const Problem& problem, std::int64_t index) {
  const std::int64_t head = index / blocks_per_head(problem);
  const std::int64_t first = index % blocks_per_head(problem) * chunk_block;
  return {head / problem.H, head % problem.H, first, std::min(chunk_block, problem.C - first)};
}

template <class R>
struct SummaryScratch {
  AdapterBlock<R> key, query;  // key.out is kappa
  R* omega;                    // (chunk_block, d)
  R* beta;                     // (d)
  R *pool, *weights;           // (P): softmax(mu . k_m), or 1/P of a mean; p

  SummaryScratch(Carver& carver, const Problem& problem)
      : key(carver, chunk_block, problem.d), query(carver, chunk_block, problem.d) {
    const std::int64_t row = row_stride<R>(problem.d);
    omega = carver.take<R>(chunk_block * row);
    beta = carver.take<R>(row);
    for (R** p : {&pool, &weights}) *p = carver.take<R>(cpu_attention::round_up(problem.P, simd::lanes<R>));
  }
};

// omega (d) += clip(eps)
template <class R>
void add_noise(R* omega, const Problem& problem, const ChunkBlock& block, std::int64_t chunk) {
  const ChunkNoise& noise = problem.config.noise;
  const auto* place = noise.place.as<std::int32_t>();
  const auto step = static_cast<std::uint32_t>(place[0]), first = static_cast<std::uint32_t>(place[1]);
  for (std::int64_t i = 0; i < problem.d; i += 4) {
    const FourNormals eps =
        chunk_noise(noise.seed, step, noise.layer, first + static_cast<std::uint32_t>(block.b),
                    static_cast<std::uint32_t>(block.h), static_cast<std::uint32_t>(chunk),
                    static_cast<std::uint32_t>(problem.d), static_cast<std::uint32_t>(i / 4));
    for (std::int64_t j = i; j < std::min(i + 4, problem.d); ++j)
      omega[j] += std::clamp(eps.value[j - i], -noise.clip, noise.clip);
  }
}

// kappa (key.out) and omega of a block from its rows q, k (from the block's first token); with adapter
// learned, omega alone.
template <class T, class R>
void propose(const SummaryScratch<R>& scratch, const T* q, const T* k, const SummaryParameters<R>& parameters,
             const Problem& problem, const ChunkBlock& block) {
  const std::int64_t d = problem.d, row = row_stride<R>(d), width = padded_width<R>(d),
                     chunk_size = problem.P * d;
  std::fill(scratch.pool, scratch.pool + problem.P, R(1) / static_cast<R>(problem.P));
  const auto adapt = [&](const AdapterBlock<R>& rows, const T* tokens, const AdapterArrays<R>& arrays,
                         const R* weight_t) {
    R* means = problem.adapted() ? rows.in : rows.out;
    for (std::int64_t c = 0; c < block.count; ++c)
      combine_rows(means + c * row, scratch.pool, tokens + c * chunk_size, problem.P, d);
    if (problem.adapted()) adapter_forward(rows, arrays, weight_t, problem.layernorm(), block.count, d);
  };
  if (!problem.learned()) adapt(scratch.key, k, parameters.key, parameters.key_weight_t);
  if (problem.uses_queries()) adapt(scratch.query, q, parameters.query, parameters.query_weight_t);

  for (std::int64_t c = 0; c < block.count; ++c) {
    R* omega = scratch.omega + c * row;
    std::fill(omega, omega + width, R(0));
    if (problem.learned()) {
      add_scaled(omega, R(1), parameters.phi + block.h * row, d);
    } else if (problem.config.proposal != Proposal::zero) {
      add_scaled(omega, R(1), scratch.key.out + c * row, d);
      if (problem.uses_queries()) add_scaled(omega, R(1), scratch.query.out + c * row, d);
    }
    if (problem.config.noise.enabled) add_noise(omega, problem, block, block.first + c);
  }
}

// weights (P) = softmax of s (omega . k_m - |k_m|^2 / 2) = s (omega - k_m / 2) . k_m over a chunk's rows k
// (P, d).
template <class T, class R>
void weigh(R* weights, const R* omega, const T* k, const Problem& problem) {
  const R scale = 1 / std::sqrt(static_cast<R>(problem.d));
  for (std::int64_t m = 0; m < problem.P; ++m) {
    simd::Vector<R> sum{};
    for_vectors<R>(problem.d, [&](std::int64_t i, auto part) {
      const auto key = part.load(k + m * problem.d + i);
      sum = simd::fma(simd::load(omega + i) - key * R(0.5), key, sum);
    });
    weights[m] = scale * simd::sum(sum);
  }
  softmax(weights, problem.P);
}

// Adapter learned: pool (P) = softmax(mu . k_m).
template <class T, class R>
void pool_keys(R* pool, const R* mu, const T* k, const Problem& problem) {
  for (std::int64_t m = 0; m < problem.P; ++m) pool[m] = dot(mu, k + m * problem.d, problem.d);
  softmax(pool, problem.P);
}

}  // namespace flasheva::summary
