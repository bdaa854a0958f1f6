// The product inside attention: C (rows x columns) = or += A (rows x depth) B (depth x columns), on one
// thread, with every operand small enough to stay in the caches. All in float or all in double; or A and B of
// pairs of bfloat16 (bf16_pairs.h), each of two steps of the depth, and C in float.
//
// C is cut into tiles of tile_rows x panel elements, held in registers while `depth` runs. A is read one
// element at a time, under any two strides: a transposed A costs nothing. B is read along its rows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/bf16_pairs.h"
#include "kernels/cpu/simd.h"

namespace flasheva::cpu_attention {

using simd::SumOf;

// A tile's width: two vectors.
template <class E>
inline constexpr int panel = 2 * simd::lanes<E>;

// Steps of the depth in an element of A or B.
template <class E>
inline constexpr int steps = std::is_floating_point_v<E> ? 1 : 2;

// A tile's height: tile_rows x 2 accumulators and one row of B fill the 16 registers of SSE and AVX2, the 32
// of AVX-512.
inline constexpr int tile_rows = simd::vector_bytes == 64 ? 12 : 6;

inline std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Element (i, j) stands at data[i * row + j * column].
template <class E>
struct Strided {
  const E* data;
  std::int64_t row, column;
};

enum class Store { overwrite, accumulate };

// One tile of C.
template <class E, int rows, Store how, class R = SumOf<E>>
inline void multiply_tile(R* __restrict c, std::int64_t c_row, Strided<E> a, const E* __restrict b,
                          std::int64_t b_row, std::int64_t depth) {
  using simd::load, simd::store;
  constexpr int lanes = simd::lanes<E>;
  simd::Vector<R> sums[rows][2] = {};
  for (std::int64_t k = 0; k < depth; ++k) {
    const auto b0 = load(b + k * b_row), b1 = load(b + k * b_row + lanes);
    for (int i = 0; i < rows; ++i) {
      const auto a_ik = simd::load_broadcast(a.data + i * a.row + k * a.column);
      sums[i][0] = simd::add_product<E>(a_ik, b0, sums[i][0]);
      sums[i][1] = simd::add_product<E>(a_ik, b1, sums[i][1]);
    }
  }
  for (int i = 0; i < rows; ++i) {
    R* row = c + i * c_row;
    if constexpr (how == Store::accumulate) {
      sums[i][0] += load(row);
      sums[i][1] += load(row + lanes);
    }
    store(row, sums[i][0]);
    store(row + lanes, sums[i][1]);
  }
}

// A strip of C, `rows` high: the last one of a product may be lower than tile_rows.
template <class E, Store how, int max_rows = tile_rows, class R = SumOf<E>>
inline void multiply_strip(R* c, std::int64_t c_row, Strided<E> a, const E* b, std::int64_t b_row,
                           std::int64_t rows, std::int64_t columns, std::int64_t depth) {
  if constexpr (max_rows > 1) {
    if (rows < max_rows)
      return multiply_strip<E, how, max_rows - 1>(c, c_row, a, b, b_row, rows, columns, depth);
  }
  for (std::int64_t j = 0; j < columns; j += panel<E>)
    multiply_tile<E, max_rows, how>(c + j, c_row, a, b + j, b_row, depth);
}

// C (rows x columns) = or += A B; columns is a multiple of the panel, rows and depth (in elements) are any.
template <class E, class R = SumOf<E>>
void multiply(Store how, R* c, std::int64_t c_row, Strided<E> a, const E* b, std::int64_t b_row,
              std::int64_t rows, std::int64_t columns, std::int64_t depth) {
  for (std::int64_t i = 0; i < rows; i += tile_rows) {
    const std::int64_t height = std::min<std::int64_t>(tile_rows, rows - i);
    const Strided<E> a_strip{a.data + i * a.row, a.row, a.column};
    if (how == Store::overwrite)
      multiply_strip<E, Store::overwrite>(c + i * c_row, c_row, a_strip, b, b_row, height, columns, depth);
    else
      multiply_strip<E, Store::accumulate>(c + i * c_row, c_row, a_strip, b, b_row, height, columns, depth);
  }
}

}  // namespace flasheva::cpu_attention
