// The operands of attention's products, in elements E: float or double, or pairs of bfloat16. Two steps of a
// product's depth share a pair, so that rows (n, d) stand in one of two ways:
//
//     along   the depth runs along a row: keys and values against the transposes of queries and dout
//     down    the depth runs down the rows: what weights and dlogits are multiplied by
//
// With float and double both are the rows as they are, padded to whole tiles, and read where they lie if that
// is how they lie: in windowed attention, whose work a key is small, copies took 8 % of the time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/padded_rows.h"

namespace flasheva::cpu_attention {

template <class E>
inline constexpr bool in_pairs = steps<E> == 2;

// Elements that `count` steps of a depth take.
template <class E>
std::int64_t elements(std::int64_t count) {
  return (count + steps<E> - 1) / steps<E>;
}

// --- along ------------------------------------------------------------------------------------------------

// Elements from one row to the next.
template <class E>
std::int64_t along_row(std::int64_t d) {
  if constexpr (in_pairs<E>) return elements<E>(d);
  return row_stride<E>(d);
}

// Whether rows (count, d) of a type that follow each other are padded rows of R as they lie.
template <class R>
bool lie_padded(DType type, std::int64_t d) {
  return type == DTypeOf<R>::value && row_stride<R>(d) == d;
}
// Whether they lie as along() gives them.
template <class E>
bool lie_along(DType type, std::int64_t d) {
  if constexpr (in_pairs<E>)
    return d % 2 == 0;
  else
    return lie_padded<E>(type, d);
}

// Rows (count, d) that follow each other: where they lie, else a copy in `memory`.
template <class E, class T>
const E* along(E* memory, const T* rows, std::int64_t count, std::int64_t d) {
  if (lie_along<E>(DTypeOf<T>::value, d)) return reinterpret_cast<const E*>(rows);
  if constexpr (in_pairs<E>) {
    for (std::int64_t m = 0; m < count; ++m) {
      E* row = memory + m * along_row<E>(d);
      row[d / 2] = E{};
      std::memcpy(static_cast<void*>(row), rows + m * d, static_cast<std::size_t>(d) * sizeof(T));
    }
  } else {
    widen_rows(memory, rows, d, count, d);
  }
  return memory;
}

// The transpose of a block's rows, in_row apart: one panel of queries after the other, each (elements of d,
// panel); queries that pad the block are 0. `rows` is memory for the block, row_stride apart.
template <class E, class T>
void transpose_queries(E* panels, E* rows, const T* in, std::int64_t in_row, const QueryBlock& block,
                       std::int64_t d) {
  constexpr int lanes = simd::lanes<E>;
  const std::int64_t row = row_stride<E>(d), depth = elements<E>(d);
  std::fill(rows, rows + block.padded * row, E{});
  if constexpr (in_pairs<E>) {
    for (std::int64_t i = 0; i < block.count; ++i)
      std::memcpy(static_cast<void*>(rows + i * row), in + i * in_row,
                  static_cast<std::size_t>(d) * sizeof(T));
  } else {
    widen_rows(rows, in, in_row, block.count, d);
  }
  for (std::int64_t i = 0; i < block.padded; i += lanes)
    for (std::int64_t k = 0; k < depth; k += lanes) {
      simd::Vector<E> square[lanes];
      for (int j = 0; j < lanes; ++j) square[j] = simd::load(rows + (i + j) * row + k);
      simd::transpose<E>(square);
      E* corner = panels + i / panel<E> * panel<E> * depth + k * panel<E> + i % panel<E>;
      for (int j = 0; j < lanes && k + j < depth; ++j) simd::store(corner + j * panel<E>, square[j]);
    }
}

// --- down -------------------------------------------------------------------------------------------------

// out (elements of count, d padded) = rows (count, d), in_row apart.
template <class E, class T>
void copy_down(E* out, const T* rows, std::int64_t in_row, std::int64_t count, std::int64_t d) {
  if constexpr (in_pairs<E>) {
    const std::int64_t row = row_stride<E>(d), written = round_up(d, simd::lanes<E>);
    for (std::int64_t m = 0; m < count; m += 2) {
      E* o = out + m / 2 * row;
      for_vectors<float>(d, [&](std::int64_t i, auto part) {
        const simd::Floats low = part.load(rows + m * in_row + i);
        const simd::Floats high = m + 1 < count ? part.load(rows + (m + 1) * in_row + i) : simd::Floats{};
        simd::store(o + i, simd::round_to_pairs(low, high));
      });
      std::fill(o + written, o + padded_width<E>(d), E{});
    }
  } else {
    widen_rows(out, rows, in_row, count, d);
  }
}

// Rows (count, d) that follow each other: where they lie, else a copy in `memory`.
template <class E, class T>
const E* down(E* memory, const T* rows, std::int64_t count, std::int64_t d) {
  if constexpr (!in_pairs<E>) return along(memory, rows, count, d);
  copy_down(memory, rows, d, count, d);
  return memory;
}

// A block's rows, in_row apart, down, with the transpose of them.
template <class E, class T>
void load_queries(E* panels, E* rows_down, const T* in, std::int64_t in_row, const QueryBlock& block,
                  std::int64_t d) {
  transpose_queries(panels, rows_down, in, in_row, block, d);
  if constexpr (in_pairs<E>) copy_down(rows_down, in, in_row, block.count, d);
}

// --- keys and values --------------------------------------------------------------------------------------

// Keys and values of one source, tokens or chunks, and in the backward pass where their gradients add up.
template <class E>
struct Source {
  const E* keys;    // along
  const E* values;  // forward: down; backward: along
};
template <class E>
struct BackwardSource : Source<E> {
  const E* keys_down;
  SumOf<E>*dkeys, *dvalues;
};

// Where the gradient of rows (count, d) adds up, zeroed: in place if the rows lie padded already, else in
// `memory`, from where finish_gradient brings it.
template <class R, class T>
R* begin_gradient(R* memory, T* rows, std::int64_t count, std::int64_t d) {
  R* sums = memory;
  if constexpr (std::is_same_v<T, R>)
    if (lie_padded<R>(DTypeOf<T>::value, d)) sums = rows;
  std::fill(sums, sums + count * row_stride<R>(d), R(0));
  return sums;
}
template <class R, class T>
void finish_gradient(T* rows, const R* sums, std::int64_t count, std::int64_t d) {
  if (static_cast<const void*>(rows) != sums) narrow_rows(rows, d, sums, count, d);
}

// --- weights and dlogits ----------------------------------------------------------------------------------

// values (count, panel), rows in_row apart, as pairs down the rows; those behind the last are 0.
template <class E>
void pack_down(E* out, const float* values, std::int64_t in_row, std::int64_t count) {
  for (std::int64_t j = 0; j < count; j += 2)
    for (int v = 0; v < panel<E>; v += simd::lanes<E>) {
      const float* at = values + j * in_row + v;
      const simd::Floats high = j + 1 < count ? simd::load(at + in_row) : simd::Floats{};
      simd::store(out + j / 2 * panel<E> + v, simd::round_to_pairs(simd::load(at), high));
    }
}

// values (count, panel) as pairs along the rows, out_row apart.
template <class E>
void pack_along(E* out, std::int64_t out_row, const float* values, std::int64_t in_row, std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j)
    for (int v = 0; v < panel<E>; v += simd::lanes<E>)
      simd::store(reinterpret_cast<bf16*>(out + j * out_row + v / 2), simd::load(values + j * in_row + v));
}

}  // namespace flasheva::cpu_attention
