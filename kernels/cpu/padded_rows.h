// Matrices in which a row of d elements is padded with zeros to whole tiles, so that loops and products over
// rows have no tails. What is stored as bfloat16 stands here as float.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/simd.h"

namespace flasheva::padded {

template <class R>
std::int64_t padded_width(std::int64_t d) {
  return attention::round_up(d, attention::panel<R>);
}

// Elements from one row to the next. Not a multiple of 512 bytes: rows that far apart share few cache sets.
template <class R>
std::int64_t row_stride(std::int64_t d) {
  const std::int64_t width = padded_width<R>(d);
  return width * static_cast<std::int64_t>(sizeof(R)) % 512 == 0
             ? width + 64 / static_cast<std::int64_t>(sizeof(R))
             : width;
}

// out (rows, d padded) = in (rows, d) * scale; rows of `in` are in_row elements apart.
template <class R, class T>
void widen_rows(R* out, const T* in, std::int64_t in_row, std::int64_t rows, std::int64_t d, R scale = 1) {
  constexpr int lanes = simd::lanes<R>;
  const std::int64_t out_row = row_stride<R>(d), width = padded_width<R>(d);
  for (std::int64_t i = 0; i < rows; ++i) {
    R* o = out + i * out_row;
    std::int64_t k = 0;
    for (; k + lanes <= d; k += lanes) simd::store(o + k, simd::load(in + i * in_row + k) * scale);
    for (; k < d; ++k) o[k] = static_cast<R>(in[i * in_row + k]) * scale;
    std::fill(o + k, o + width, R(0));
  }
}

// out (rows, d) = in (rows, d padded) * scale, rounded.
template <class R, class T>
void narrow_rows(T* out, std::int64_t out_row, const R* in, std::int64_t rows, std::int64_t d, R scale = 1) {
  constexpr int lanes = simd::lanes<R>;
  const std::int64_t in_row = row_stride<R>(d);
  for (std::int64_t i = 0; i < rows; ++i) {
    const R* x = in + i * in_row;
    std::int64_t k = 0;
    for (; k + lanes <= d; k += lanes) simd::store(out + i * out_row + k, simd::load(x + k) * scale);
    for (; k < d; ++k) out[i * out_row + k] = static_cast<T>(x[k] * scale);
  }
}

// out (d) = mean of `rows` rows of in, d elements apart.
template <class R, class T>
void mean_of_rows(R* out, const T* in, std::int64_t rows, std::int64_t d) {
  constexpr int lanes = simd::lanes<R>;
  const R weight = R(1) / static_cast<R>(rows);
  std::int64_t i = 0;
  for (; i + lanes <= d; i += lanes) {
    simd::Vector<R> sum{};
    for (std::int64_t m = 0; m < rows; ++m) sum += simd::load(in + m * d + i);
    simd::store(out + i, sum * weight);
  }
  for (; i < d; ++i) {
    R sum = 0;
    for (std::int64_t m = 0; m < rows; ++m) sum += static_cast<R>(in[m * d + i]);
    out[i] = sum * weight;
  }
  std::fill(out + i, out + padded_width<R>(d), R(0));
}

// The dot product of two padded rows.
template <class R>
R dot(const R* x, const R* y, std::int64_t width) {
  simd::Vector<R> sum{};
  for (std::int64_t i = 0; i < width; i += simd::lanes<R>)
    sum = simd::fma(simd::load(x + i), simd::load(y + i), sum);
  return simd::sum(sum);
}

// y += a x
template <class R>
void add_scaled(R* y, R a, const R* x, std::int64_t width) {
  for (std::int64_t i = 0; i < width; i += simd::lanes<R>)
    simd::store(y + i, simd::fma(simd::broadcast(a), simd::load(x + i), simd::load(y + i)));
}

// out (rows, d) += gradient (rows, d padded), rounded once.
template <class R, class T>
void add_rows(T* out, const R* gradient, std::int64_t rows, std::int64_t d) {
  constexpr int lanes = simd::lanes<R>;
  for (std::int64_t m = 0; m < rows; ++m) {
    T* o = out + m * d;
    const R* g = gradient + m * row_stride<R>(d);
    std::int64_t i = 0;
    for (; i + lanes <= d; i += lanes) simd::store(o + i, simd::load(o + i) + simd::load(g + i));
    for (; i < d; ++i) o[i] = static_cast<T>(static_cast<R>(o[i]) + g[i]);
  }
}

}  // namespace flasheva::padded
