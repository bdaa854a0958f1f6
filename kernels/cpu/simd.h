// Short vectors of float or double for the loops that a compiler does not vectorise well by itself. Built on
// the vector extensions of GCC and clang: + - * / and comparisons work on them as they are, and the same
// source serves SSE, AVX2 and AVX-512.
//
//     for (; i + lanes<float> <= n; i += lanes<float>) store(y + i, exp(load(x + i)));
//     if (i < n) store_first(y + i, exp(load_first(x + i, n - i)), n - i);
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "kernels/bf16.h"
#include "kernels/f16.h"

namespace flasheva::simd {

// One machine register: what fits depends on -march alone.
#ifdef __AVX512F__
inline constexpr int vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif

// Elements in a vector of T: float 4, 8 or 16, double half as many.
template <class T>
inline constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float Type __attribute__((vector_size(vector_bytes)));
  typedef std::int32_t Mask __attribute__((vector_size(vector_bytes)));
};
template <>
struct VectorOf<double> {
  typedef double Type __attribute__((vector_size(vector_bytes)));
  typedef std::int64_t Mask __attribute__((vector_size(vector_bytes)));
};
template <class T>
using Vector = typename VectorOf<T>::Type;
template <class T>
using Mask = typename VectorOf<T>::Mask;  // per lane all ones (true) or zero; what comparisons give

using Floats = Vector<float>;
using Doubles = Vector<double>;
using Ints = Mask<float>;

namespace detail {
typedef std::uint16_t Halves __attribute__((vector_size(vector_bytes / 2)));
typedef std::uint32_t Words __attribute__((vector_size(vector_bytes)));
}  // namespace detail

// --- making, loading, storing (no alignment needed) -----------------------------------------------------

template <class T>
inline Vector<T> broadcast(T value) {
  return value - Vector<T>{};  // x - 0 is x for every x, -0 included, and compiles to a plain broadcast
}

inline Floats load(const float* p) {
  Floats v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
inline Doubles load(const double* p) {
  Doubles v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
inline Floats load(const bf16* p) {
  detail::Halves halves;
  std::memcpy(&halves, p, sizeof(halves));
  return std::bit_cast<Floats>(__builtin_convertvector(halves, detail::Words) << 16);
}
// F16C's conversions as instructions: their header takes half a second to include.
inline Floats load(const f16* p) {
#ifdef __F16C__
  detail::Halves halves;
  std::memcpy(&halves, p, sizeof(halves));
  Floats v;
  asm("vcvtph2ps %1, %0" : "=v"(v) : "v"(halves));
#else
  Floats v;
  for (int i = 0; i < lanes<float>; ++i) v[i] = static_cast<float>(p[i]);
#endif
  return v;
}

inline void store(float* p, Floats v) { std::memcpy(p, &v, sizeof(v)); }
inline void store(double* p, Doubles v) { std::memcpy(p, &v, sizeof(v)); }
// Rounds to nearest, ties to even; NaN stays NaN.
inline void store(bf16* p, Floats v) {
  const auto u = std::bit_cast<detail::Words>(v);
  const detail::Words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const detail::Words quiet_nan = (u >> 16) | 0x40u;
  const auto halves = __builtin_convertvector(v == v ? rounded : quiet_nan, detail::Halves);
  std::memcpy(static_cast<void*>(p), &halves, sizeof(halves));
}

inline void store(f16* p, Floats v) {
#ifdef __F16C__
  detail::Halves halves;
  asm("vcvtps2ph $0, %1, %0" : "=v"(halves) : "v"(v));  // 0: to nearest, ties to even
  std::memcpy(static_cast<void*>(p), &halves, sizeof(halves));
#else
  for (int i = 0; i < lanes<float>; ++i) p[i] = f16(v[i]);
#endif
}

// The first `count` elements (0 <= count <= lanes); the other lanes are 0. Memory behind them is not touched.
template <class T>
inline auto load_first(const T* p, std::int64_t count) {
  constexpr int width = sizeof(T) == 8 ? lanes<double> : lanes<float>;
  T padded[width] = {};
  for (std::int64_t i = 0; i < count; ++i) padded[i] = p[i];
  return load(padded);
}
template <class T, class V>
inline void store_first(T* p, V v, std::int64_t count) {
  constexpr int width = sizeof(T) == 8 ? lanes<double> : lanes<float>;
  T padded[width];
  store(padded, v);
  for (std::int64_t i = 0; i < count; ++i) p[i] = padded[i];
}

// --- masks ------------------------------------------------------------------------------------------------

inline Floats select(Ints mask, Floats yes, Floats no) { return mask ? yes : no; }
inline Doubles select(Mask<double> mask, Doubles yes, Doubles no) { return mask ? yes : no; }

// True in lanes 0 .. count - 1; any count.
template <class T>
inline Mask<T> first_lanes(std::int64_t count) {
  Mask<T> index;
  for (int i = 0; i < lanes<T>; ++i) index[i] = i;
  using Element = std::remove_reference_t<decltype(index[0])>;
  const std::int64_t bounded = count < 0 ? 0 : count > lanes<T> ? lanes<T> : count;
  return index < static_cast<Element>(bounded);
}

// --- arithmetic -------------------------------------------------------------------------------------------

// a * b + c, in one rounding where the machine has FMA.
inline Floats fma(Floats a, Floats b, Floats c) { return a * b + c; }
inline Doubles fma(Doubles a, Doubles b, Doubles c) { return a * b + c; }

// The larger; b where a is NaN or b is.
inline Floats max(Floats a, Floats b) { return a > b ? a : b; }
inline Doubles max(Doubles a, Doubles b) { return a > b ? a : b; }

namespace detail {

// Lane i takes lane i ^ distance.
template <int distance, class V, int... i>
inline V swap_lanes(V v, std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(v, v, (i ^ distance)...);
}

template <int distance, class V, class Combine>
inline auto reduce(V v, const Combine& combine) {
  if constexpr (distance == 0) {
    return v[0];
  } else {
    constexpr int n = vector_bytes / static_cast<int>(sizeof(v[0]));
    return reduce<distance / 2>(combine(v, swap_lanes<distance>(v, std::make_integer_sequence<int, n>{})),
                                combine);
  }
}

// Exchanges the off-diagonal quarters of every square of 2 distance x 2 distance that the two rows cross.
template <int distance, class V, int... i>
inline void exchange(V& upper, V& lower, std::integer_sequence<int, i...>) {
  constexpr int n = sizeof...(i);
  const V above = __builtin_shufflevector(upper, lower, (i & distance ? n + i - distance : i)...);
  lower = __builtin_shufflevector(upper, lower, (i & distance ? n + i : i + distance)...);
  upper = above;
}

}  // namespace detail

// Whether any lane is true.
inline bool any(Ints mask) {
  return detail::reduce<lanes<float> / 2>(mask, [](Ints a, Ints b) { return a | b; }) != 0;
}
inline bool any(Mask<double> mask) {
  return detail::reduce<lanes<double> / 2>(mask, [](Mask<double> a, Mask<double> b) { return a | b; }) != 0;
}

// Over the lanes, in the same order on every call.
inline float sum(Floats v) {
  return detail::reduce<lanes<float> / 2>(v, [](Floats a, Floats b) { return a + b; });
}
inline double sum(Doubles v) {
  return detail::reduce<lanes<double> / 2>(v, [](Doubles a, Doubles b) { return a + b; });
}
inline float maximum(Floats v) {
  return detail::reduce<lanes<float> / 2>(v, [](Floats a, Floats b) { return max(a, b); });
}
inline double maximum(Doubles v) {
  return detail::reduce<lanes<double> / 2>(v, [](Doubles a, Doubles b) { return max(a, b); });
}

// The transpose of the square of lanes<T> rows.
template <class T, int distance = lanes<T> / 2>
inline void transpose(Vector<T>* rows) {
  if constexpr (distance > 0) {
    for (int i = 0; i < lanes<T>; ++i)
      if ((i & distance) == 0)
        detail::exchange<distance>(rows[i], rows[i + distance], std::make_integer_sequence<int, lanes<T>>{});
    transpose<T, distance / 2>(rows);
  }
}

// --- exponential ------------------------------------------------------------------------------------------

namespace detail {

inline constexpr float round_magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds a float to an integer

// 2^f * 2^n for f in [-1/2, 1/2] and shifted = n + round_magic, n in [-126, 127]. The polynomial is the
// relative minimax fit with constant term 1 (error 2e-9).
inline Floats exp2_of_parts(Floats f, Floats shifted) {
  Floats p = broadcast(1.5353362e-4f);
  p = fma(p, f, broadcast(1.3398875e-3f));
  p = fma(p, f, broadcast(9.6184369e-3f));
  p = fma(p, f, broadcast(5.5503324e-2f));
  p = fma(p, f, broadcast(2.4022648e-1f));
  p = fma(p, f, broadcast(6.9314718e-1f));
  p = fma(p, f, broadcast(1.0f));
  // The magic's own low bits are 0. Unsigned, for lanes out of range, whose result is not used, wrap around.
  const Words exponent = std::bit_cast<Words>(shifted) << 23;
  const Words one = std::bit_cast<Words>(broadcast(1.0f));
  return p * std::bit_cast<Floats>(exponent + one);
}

}  // namespace detail

// 2^x, relative error about 1e-7: 0 below -126 (and for -inf), inf above 127.49, NaN for NaN.
inline Floats exp2(Floats x) {
  const Floats shifted = x + detail::round_magic;
  const Floats f = x - (shifted - detail::round_magic);
  Floats y = detail::exp2_of_parts(f, shifted);
  y = select(x < -126.0f, Floats{}, y);
  return select(x > 127.49f, broadcast(std::numeric_limits<float>::infinity()), y);
}

// e^x, relative error about 1e-7: 0 below -87.33 (and for -inf), inf above 88.37, NaN for NaN.
inline Floats exp(Floats x) {
  constexpr float log2_e = 1.44269504f;
  constexpr float ln2_high = 0.693359375f,
                  ln2_low = -2.12194440e-4f;  // ln2_high has 9 bits: n * ln2_high is exact
  const Floats shifted = fma(x, broadcast(log2_e), broadcast(detail::round_magic));
  const Floats n = shifted - detail::round_magic;
  const Floats remainder = fma(n, broadcast(-ln2_low), fma(n, broadcast(-ln2_high), x));
  Floats y = detail::exp2_of_parts(remainder * log2_e, shifted);
  y = select(x < -87.33f, Floats{}, y);
  return select(x > 88.37f, broadcast(std::numeric_limits<float>::infinity()), y);
}

inline Doubles exp2(Doubles x) {
  for (int i = 0; i < lanes<double>; ++i) x[i] = std::exp2(x[i]);
  return x;
}
inline Doubles exp(Doubles x) {
  for (int i = 0; i < lanes<double>; ++i) x[i] = std::exp(x[i]);
  return x;
}

}  // namespace flasheva::simd
