// What the threads of a call of the chunk summaries share: the layer's parameters, widened once, and sums for
// their gradients.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/chunk_summary_contract.h"
#include "kernels/cpu/chunk_adapter.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/padded_rows.h"
#include "kernels/cpu/scratch.h"
#include "kernels/ops.h"

namespace flasheva::summary {

using namespace padded;

inline constexpr std::int64_t chunk_block = 32;  // chunks of a head that are taken at a time

// Blocks of chunks, of all heads. The last block of a head has the tokens after its chunks too; there is one
// where there are no chunks.
inline std::int64_t blocks_per_head(const Problem& problem) {
  return std::max<std::int64_t>(1, (problem.C + chunk_block - 1) / chunk_block);
}
inline std::int64_t blocks_of(const Problem& problem) {
  return problem.B * problem.H * blocks_per_head(problem);
}

// All parameters of a layer, or sums for their gradients.
template <class R>
struct SummaryArrays {
  AdapterArrays<R> key, query;
  R *mu, *phi;  // (H, d)

  SummaryArrays(Carver& carver, const Problem& problem) : key(carver, problem.d), query(carver, problem.d) {
    for (R** p : {&mu, &phi}) *p = carver.take<R>(problem.H * row_stride<R>(problem.d));
  }
};

// The parameters, widened once for all threads.
template <class R>
struct SummaryParameters : SummaryArrays<R> {
  R *key_weight_t, *query_weight_t;  // (d, d)

  SummaryParameters(Carver& carver, const Problem& problem) : SummaryArrays<R>(carver, problem) {
    for (R** p : {&key_weight_t, &query_weight_t}) *p = carver.take<R>(problem.d * row_stride<R>(problem.d));
  }
};

// What all threads of a backward share: the parameters, and for each thread's share of the work sums of its
// own, zeroed.
template <class R>
struct SharedArrays {
  SummaryParameters<R> parameters;
  int shares = omp_get_max_threads();
  std::byte* first_sums;
  std::int64_t sums_bytes;
  const Problem& problem;

  SharedArrays(Carver& carver, const Problem& problem)
      : parameters(carver, problem),
        sums_bytes(bytes_of_layout<SummaryArrays<R>>(problem)),
        problem(problem) {
    first_sums = carver.take<std::byte>(shares * sums_bytes);
    if (first_sums) std::memset(first_sums, 0, static_cast<std::size_t>(shares * sums_bytes));
  }

  SummaryArrays<R> sums(int share) const {
    Carver carver(first_sums + share * sums_bytes);
    return SummaryArrays<R>(carver, problem);
  }
};

template <class T, class R>
void widen_parameter(R* out, Tensor in, std::int64_t rows, std::int64_t d) {
  if (in) widen_rows(out, in.as<T>(), d, rows, d);
}

template <class R>
void transpose_weight(R* out, const R* in, std::int64_t d) {
  const std::int64_t row = row_stride<R>(d);
  for (std::int64_t i = 0; i < d; ++i) {
    for (std::int64_t j = 0; j < d; ++j) out[i * row + j] = in[j * row + i];
    std::fill(out + i * row + d, out + (i + 1) * row, R(0));
  }
}

template <class T, class R>
void widen_parameters(const SummaryParameters<R>& out, const EvaParameters& in, const Problem& problem) {
  const std::int64_t d = problem.d;
  widen_parameter<T>(out.key.weight, in.key_weight, d, d);
  widen_parameter<T>(out.key.bias, in.key_bias, 1, d);
  widen_parameter<T>(out.key.norm_weight, in.key_norm_weight, 1, d);
  widen_parameter<T>(out.key.norm_bias, in.key_norm_bias, 1, d);
  widen_parameter<T>(out.query.weight, in.query_weight, d, d);
  widen_parameter<T>(out.query.bias, in.query_bias, 1, d);
  widen_parameter<T>(out.query.norm_weight, in.query_norm_weight, 1, d);
  widen_parameter<T>(out.query.norm_bias, in.query_norm_bias, 1, d);
  widen_parameter<T>(out.mu, in.mu, problem.H, d);
  widen_parameter<T>(out.phi, in.phi, problem.H, d);
  if (in.key_weight) transpose_weight(out.key_weight_t, out.key.weight, d);
  if (in.query_weight) transpose_weight(out.query_weight_t, out.query.weight, d);
}

template <class R>
void add_gradient(Tensor gradient, const R* sum, std::int64_t rows, std::int64_t d) {
  if (!gradient) return;
  for (std::int64_t i = 0; i < rows; ++i)
    add_scaled(gradient.as<R>() + i * d, R(1), sum + i * row_stride<R>(d), d);
}

template <class R>
void add_gradients(const EvaParameters& gradients, const SummaryArrays<R>& sums, const Problem& problem) {
  const std::int64_t d = problem.d;
  add_gradient(gradients.key_weight, sums.key.weight, d, d);
  add_gradient(gradients.key_bias, sums.key.bias, 1, d);
  add_gradient(gradients.key_norm_weight, sums.key.norm_weight, 1, d);
  add_gradient(gradients.key_norm_bias, sums.key.norm_bias, 1, d);
  add_gradient(gradients.query_weight, sums.query.weight, d, d);
  add_gradient(gradients.query_bias, sums.query.bias, 1, d);
  add_gradient(gradients.query_norm_weight, sums.query.norm_weight, 1, d);
  add_gradient(gradients.query_norm_bias, sums.query.norm_bias, 1, d);
  add_gradient(gradients.mu, sums.mu, problem.H, d);
  add_gradient(gradients.phi, sums.phi, problem.H, d);
}

}  // namespace flasheva::summary
