// Passes over contiguous elements in vectors of simd.h: a function of vectors says what happens to an
// element, whatever its type is in memory. bfloat16 and float16 are widened to float32 as they are
// loaded and rounded as they are stored.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/loops.h"
#include "kernels/cpu/simd.h"

namespace flasheva {

// out[i] = function(in[i] ...) for first <= i < last. out may be any of the inputs.
template <class T, class Function, class... In>
inline void map(T* out, std::int64_t first, std::int64_t last, const Function& function, const In*... in) {
  constexpr std::int64_t lanes = simd::lanes<Accumulator<T>>;
  std::int64_t i = first;
  for (; i + lanes <= last; i += lanes) simd::store(out + i, function(simd::load(in + i)...));
  if (i < last) simd::store_first(out + i, function(simd::load_first(in + i, last - i)...), last - i);
}

// The sum of function(in[i] ...) over 0 <= i < size. Four sums run side by side, so that additions overlap;
// the order is the same on every call.
template <class A, class Function, class... In>
inline A sum_of(std::int64_t size, const Function& function, const In*... in) {
  constexpr std::int64_t lanes = simd::lanes<A>;
  simd::Vector<A> sums[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * lanes <= size; i += 4 * lanes)
    for (int j = 0; j < 4; ++j) sums[j] += function(simd::load(in + i + j * lanes)...);
  for (; i < size; i += lanes) {
    const auto terms = function(simd::load_first(in + i, std::min(lanes, size - i))...);
    sums[0] += simd::select(simd::first_lanes<A>(size - i), terms, simd::Vector<A>{});
  }
  return simd::sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// out = in, converted element by element; float64 reaches bfloat16 and float16 by way of float32.
template <class Out, class In>
inline void convert_range(Out* out, const In* in, std::int64_t size) {
  if constexpr (std::is_same_v<Accumulator<Out>, Accumulator<In>>) {
    const auto itself = [](auto x) { return x; };
    map(out, 0, size, itself, in);
  } else {
    for (std::int64_t i = 0; i < size; ++i) out[i] = static_cast<Out>(static_cast<Accumulator<In>>(in[i]));
  }
}

// The same, shared among threads.
template <class Out, class In>
inline void convert(Out* out, const In* in, std::int64_t size) {
  parallel_elements(size, [=](std::int64_t first, std::int64_t last) {
    convert_range(out + first, in + first, last - first);
  });
}

}  // namespace flasheva
