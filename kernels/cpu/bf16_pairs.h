// Pairs of bfloat16 in 32 bits, and products that take two steps of a sum at once: sum + a.low b.low + a.high
// b.high. AVX512_BF16 has an instruction for that, which takes denormals for 0.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/cpu/bf16_products.h"
#include "kernels/cpu/simd.h"

namespace flasheva::simd {

template <Bf16Products how>
struct Pair {
  std::uint32_t bits;  // the first value in the lower half
};

template <Bf16Products how>
struct VectorOf<Pair<how>> {
  typedef detail::Words Type;
};

template <Bf16Products how>
inline detail::Words load(const Pair<how>* p) {
  detail::Words v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
template <Bf16Products how>
inline void store(Pair<how>* p, detail::Words v) {
  std::memcpy(static_cast<void*>(p), &v, sizeof(v));
}
template <Bf16Products how>
inline detail::Words load_broadcast(const Pair<how>* p) {
  std::uint32_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return detail::Words{} + bits;
}
template <class R>
inline Vector<R> load_broadcast(const R* p) {
  return broadcast(*p);
}

// What products of E add up in.
template <class E>
using SumOf = std::conditional_t<std::is_floating_point_v<E>, E, float>;

// sum + a b, of one value a lane or of a pair.
template <class E>
inline Vector<SumOf<E>> add_product(Vector<E> a, Vector<E> b, Vector<SumOf<E>> sum) {
  if constexpr (std::is_floating_point_v<E>) {
    return fma(a, b, sum);
  } else {
#ifdef __AVX512F__
    if constexpr (std::is_same_v<E, Pair<Bf16Products::pairs>>) {
      asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
      return sum;
    }
#endif
    const auto low = [](detail::Words pair) { return std::bit_cast<Floats>(pair << 16); };
    const auto high = [](detail::Words pair) { return std::bit_cast<Floats>(pair & 0xffff0000u); };
    return fma(low(a), low(b), fma(high(a), high(b), sum));
  }
}

// Two vectors of floats, rounded to nearest, ties to even. A NaN whose lower half is set could be lost; those
// that a CPU makes, and those that come from bfloat16, have none.
inline detail::Words round_to_pairs(Floats low, Floats high) {
  const auto rounded = [](Floats v) {
    const auto u = std::bit_cast<detail::Words>(v);
    return u + 0x7fffu + ((u >> 16) & 1u);
  };
  return (rounded(low) >> 16) | (rounded(high) & 0xffff0000u);
}

}  // namespace flasheva::simd
