// The two sources of a head's keys and values, tokens and chunks, as rows padded to whole tiles: read, and
// their gradients summed, where they lie if that is how they lie, else in a copy. In windowed attention,
// whose work a key is small, copies took 8 % of the time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/padded_rows.h"

namespace flasheva::attention {

// Rows (count, d) as R, padded: where they lie if that is how they lie, else a copy in `memory`.
template <class R, class T>
const R* padded_rows_of(R* memory, const T* rows, std::int64_t count, std::int64_t d) {
  if constexpr (std::is_same_v<T, R>)
    if (row_stride<R>(d) == d) return rows;
  widen_rows(memory, rows, d, count, d);
  return memory;
}

// Keys and values of one source, tokens or chunks.
template <class R>
struct Source {
  const R *keys, *values;
};

// A head's two sources. The memory for copies, `keys` and `values`, has room for (S + C, d) each.
template <class R>
struct Sources {
  Source<R> tokens, chunks;

  template <class T>
  Sources(R* keys, R* values, const T* k, const T* v, const T* kappa, const T* beta, const Sizes& sizes) {
    const std::int64_t S = sizes.S, C = sizes.C, d = sizes.d, behind = S * row_stride<R>(d);
    tokens = {padded_rows_of(keys, k, S, d), padded_rows_of(values, v, S, d)};
    chunks = {padded_rows_of(keys + behind, kappa, C, d), padded_rows_of(values + behind, beta, C, d)};
  }
};

// A source, and where the gradients of its keys and values add up.
template <class R>
struct BackwardSource : Source<R> {
  R *dkeys, *dvalues;
};

// Where the gradient of rows (count, d) adds up, zeroed: in place if the rows lie padded already, else in
// `memory`, from where finish_gradient brings it.
template <class R, class T>
R* begin_gradient(R* memory, T* rows, std::int64_t count, std::int64_t d) {
  R* sums = memory;
  if constexpr (std::is_same_v<T, R>)
    if (row_stride<R>(d) == d) sums = rows;
  std::fill(sums, sums + count * row_stride<R>(d), R(0));
  return sums;
}
template <class R, class T>
void finish_gradient(T* rows, const R* sums, std::int64_t count, std::int64_t d) {
  if (static_cast<const void*>(rows) != sums) narrow_rows(rows, d, sums, count, d);
}

}  // namespace flasheva::attention
