// The adapter of chunk summaries, on rows of chunk means:
//     linear             A(x) = W x + b
//     linear_layernorm   A(x) = w' * (z - mean z) / sqrt(variance z + 1e-5) + b',  z = W x + b
// Both on one thread, over a block of rows padded with zeros (padded_rows.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/padded_rows.h"
#include "kernels/cpu/scratch.h"

namespace flasheva {

inline constexpr double adapter_norm_eps = 1e-5;

// An adapter's parameters, or sums for their gradients: weight (d, d), the others (d), all padded.
template <class R>
struct AdapterArrays {
  R *weight, *bias, *norm_weight, *norm_bias;

  AdapterArrays(Carver& carver, std::int64_t d) {
    const std::int64_t row = padded::row_stride<R>(d);
    weight = carver.take<R>(d * row);
    for (R** p : {&bias, &norm_weight, &norm_bias}) *p = carver.take<R>(row);
  }
};

// A block of rows on its way through an adapter, kept for the way back; without an adapter, out is in.
template <class R>
struct AdapterBlock {
  R *in, *out;    // (rows, d)
  R* normalized;  // (rows, d) before norm_weight and norm_bias
  R* rstd;        // (rows)

  AdapterBlock(Carver& carver, std::int64_t rows, std::int64_t d) {
    for (R** p : {&in, &out, &normalized}) *p = carver.take<R>(rows * padded::row_stride<R>(d));
    rstd = carver.take<R>(rows);
  }
};

// normalized (rows, d) = its own rows brought to mean 0 and variance 1, rstd (rows).
template <class R>
void normalize_rows(R* normalized, R* rstd, std::int64_t rows, std::int64_t d) {
  for (std::int64_t c = 0; c < rows; ++c) {
    R* z = normalized + c * padded::row_stride<R>(d);
    R mean = 0, variance = 0;
    for (std::int64_t i = 0; i < d; ++i) mean += z[i];
    mean /= static_cast<R>(d);
    for (std::int64_t i = 0; i < d; ++i) variance += (z[i] - mean) * (z[i] - mean);
    rstd[c] = 1 / std::sqrt(variance / static_cast<R>(d) + static_cast<R>(adapter_norm_eps));
    for (std::int64_t i = 0; i < d; ++i) z[i] = (z[i] - mean) * rstd[c];
  }
}

// block.out = A(block.in); weight_t (d, d padded) is the transposed weight.
template <class R>
void adapter_forward(const AdapterBlock<R>& block, const AdapterArrays<R>& parameters, const R* weight_t,
                     bool layernorm, std::int64_t rows, std::int64_t d) {
  using namespace cpu_attention;
  using namespace padded;
  const std::int64_t row = row_stride<R>(d), width = padded_width<R>(d);
  R* z = layernorm ? block.normalized : block.out;
  multiply<R>(Store::overwrite, z, row, {block.in, row, 1}, weight_t, row, rows, width, d);
  for (std::int64_t c = 0; c < rows; ++c)
    for (std::int64_t i = 0; i < d; ++i) z[c * row + i] += parameters.bias[i];
  if (!layernorm) return;
  normalize_rows(z, block.rstd, rows, d);
  std::fill(block.out, block.out + rows * row, R(0));
  for (std::int64_t c = 0; c < rows; ++c)
    for (std::int64_t i = 0; i < d; ++i)
      block.out[c * row + i] = z[c * row + i] * parameters.norm_weight[i] + parameters.norm_bias[i];
}

// dout (rows, d) becomes the gradient with respect to z; gradients += of norm_weight and norm_bias.
template <class R>
void normalize_rows_backward(R* dout, const AdapterArrays<R>& gradients, const AdapterBlock<R>& block,
                             const AdapterArrays<R>& parameters, std::int64_t rows, std::int64_t d) {
  const std::int64_t row = padded::row_stride<R>(d);
  for (std::int64_t c = 0; c < rows; ++c) {
    R* dy = dout + c * row;
    const R* normalized = block.normalized + c * row;
    R mean = 0, projection = 0;  // of the gradient that reaches `normalized`, and its part along it
    for (std::int64_t i = 0; i < d; ++i) {
      gradients.norm_weight[i] += dy[i] * normalized[i];
      gradients.norm_bias[i] += dy[i];
      dy[i] *= parameters.norm_weight[i];
      mean += dy[i];
      projection += dy[i] * normalized[i];
    }
    mean /= static_cast<R>(d);
    projection /= static_cast<R>(d);
    for (std::int64_t i = 0; i < d; ++i) dy[i] = (dy[i] - mean - normalized[i] * projection) * block.rstd[c];
  }
}

// din (rows, d) =; dout (rows, d) is used up; gradients +=.
template <class R>
void adapter_backward(R* din, R* dout, const AdapterArrays<R>& gradients, const AdapterBlock<R>& block,
                      const AdapterArrays<R>& parameters, bool layernorm, std::int64_t rows, std::int64_t d) {
  using namespace cpu_attention;
  using namespace padded;
  const std::int64_t row = row_stride<R>(d), width = padded_width<R>(d);
  if (layernorm) normalize_rows_backward(dout, gradients, block, parameters, rows, d);
  for (std::int64_t c = 0; c < rows; ++c)
    for (std::int64_t i = 0; i < d; ++i) gradients.bias[i] += dout[c * row + i];
  multiply<R>(Store::accumulate, gradients.weight, row, {dout, 1, row}, block.in, row, d, width, rows);
  multiply<R>(Store::overwrite, din, row, {dout, row, 1}, parameters.weight, row, rows, width, d);
}

}  // namespace flasheva
