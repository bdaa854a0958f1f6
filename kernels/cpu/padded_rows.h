// Matrices in which a row of d elements is padded with zeros to whole tiles, so that loops and products over
// rows have no tails. What is stored in 16 bits stands here as float.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/simd.h"

namespace flasheva::padded {

template <class R>
std::int64_t padded_width(std::int64_t d) {
  return cpu_attention::round_up(d, cpu_attention::panel<R>);
}

// Elements from one row to the next. Not a multiple of 512 bytes: rows that far apart share few cache sets.
template <class R>
std::int64_t row_stride(std::int64_t d) {
  const std::int64_t width = padded_width<R>(d);
  return width * static_cast<std::int64_t>(sizeof(R)) % 512 == 0
             ? width + 64 / static_cast<std::int64_t>(sizeof(R))
             : width;
}

// The elements of a row that one vector covers: all its lanes, or the last few of the row.
struct WholeVector {
  template <class T>
  auto load(const T* p) const {
    return simd::load(p);
  }
  template <class T, class V>
  void store(T* p, V v) const {
    simd::store(p, v);
  }
};
struct PartOfVector {
  std::int64_t count;

  template <class T>
  auto load(const T* p) const {
    return simd::load_first(p, count);
  }
  template <class T, class V>
  void store(T* p, V v) const {
    simd::store_first(p, v, count);
  }
};

// Calls f(i, part) for every vector of a row of d elements that is not padded: part.load(row + i) and
// part.store(row + i, v) stay within the row.
template <class R, class F>
inline void for_vectors(std::int64_t d, const F& f) {
  constexpr int lanes = simd::lanes<R>;
  std::int64_t i = 0;
  for (; i + lanes <= d; i += lanes) f(i, WholeVector{});
  if (i < d) f(i, PartOfVector{d - i});
}

// out (rows, d padded) = in (rows, d) * scale; rows of `in` are in_row elements apart.
template <class R, class T>
void widen_rows(R* out, const T* in, std::int64_t in_row, std::int64_t rows, std::int64_t d, R scale = 1) {
  const std::int64_t out_row = row_stride<R>(d), width = padded_width<R>(d);
  const std::int64_t written = cpu_attention::round_up(d, simd::lanes<R>);
  for (std::int64_t m = 0; m < rows; ++m) {
    R* o = out + m * out_row;
    for_vectors<R>(
        d, [&](std::int64_t i, auto part) { simd::store(o + i, part.load(in + m * in_row + i) * scale); });
    std::fill(o + written, o + width, R(0));
  }
}

// out (rows, d) = in (rows, d padded) * scale, rounded.
template <class R, class T>
void narrow_rows(T* out, std::int64_t out_row, const R* in, std::int64_t rows, std::int64_t d, R scale = 1) {
  const std::int64_t in_row = row_stride<R>(d);
  for (std::int64_t m = 0; m < rows; ++m)
    for_vectors<R>(d, [&](std::int64_t i, auto part) {
      part.store(out + m * out_row + i, simd::load(in + m * in_row + i) * scale);
    });
}

// y (d) += a x (d padded), rounded once.
template <class R, class T>
void add_scaled(T* y, R a, const R* x, std::int64_t d) {
  for_vectors<R>(d, [&](std::int64_t i, auto part) {
    part.store(y + i, simd::fma(simd::broadcast(a), simd::load(x + i), part.load(y + i)));
  });
}

// The dot product of x (d padded) and y (d).
template <class R, class T>
R dot(const R* x, const T* y, std::int64_t d) {
  simd::Vector<R> sum{};
  for_vectors<R>(
      d, [&](std::int64_t i, auto part) { sum = simd::fma(simd::load(x + i), part.load(y + i), sum); });
  return simd::sum(sum);
}

// out (d padded) = sum over m of weights[m] in_m; the rows of `in` are d elements apart.
template <class R, class T>
void combine_rows(R* out, const R* weights, const T* in, std::int64_t rows, std::int64_t d) {
  std::fill(out, out + padded_width<R>(d), R(0));
  for_vectors<R>(d, [&](std::int64_t i, auto part) {
    simd::Vector<R> sum{};
    for (std::int64_t m = 0; m < rows; ++m)
      sum = simd::fma(simd::broadcast(weights[m]), part.load(in + m * d + i), sum);
    simd::store(out + i, sum);
  });
}

}  // namespace flasheva::padded
