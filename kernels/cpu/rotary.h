// The rotation of one head's query or key, half against half:
//     [x1 | x2] -> [x1 cos - x2 sin | x2 cos + x1 sin]
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/loops.h"

namespace flasheva {

// out (d) = in (d) with its first 2R = 2 half dimensions turned by the angles of one position, (R) cosines
// and sines; direction -1 turns back.
template <class T>
inline void rotate(T* out, const T* in, const Accumulator<T>* cosine, const Accumulator<T>* sine,
                   Accumulator<T> direction, std::int64_t half, std::int64_t head_dim) {
  using A = Accumulator<T>;
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const A x1 = static_cast<A>(in[i]), x2 = static_cast<A>(in[half + i]);
    out[i] = static_cast<T>(x1 * cosine[i] - x2 * (direction * sine[i]));
    out[half + i] = static_cast<T>(x2 * cosine[i] + x1 * (direction * sine[i]));
  }
  std::copy(in + 2 * half, in + head_dim, out + 2 * half);
}

// A token's row of one head, [q | k | v] of d elements each, taken apart and turned, and back.
template <class T>
inline void split_token(T* q, T* k, T* v, const T* fused, const Accumulator<T>* cosine,
                        const Accumulator<T>* sine, std::int64_t half, std::int64_t head_dim) {
  rotate(q, fused, cosine, sine, Accumulator<T>{1}, half, head_dim);
  rotate(k, fused + head_dim, cosine, sine, Accumulator<T>{1}, half, head_dim);
  std::copy_n(fused + 2 * head_dim, head_dim, v);
}
template <class T>
inline void merge_token(T* dfused, const T* dq, const T* dk, const T* dv, const Accumulator<T>* cosine,
                        const Accumulator<T>* sine, std::int64_t half, std::int64_t head_dim) {
  rotate(dfused, dq, cosine, sine, Accumulator<T>{-1}, half, head_dim);
  rotate(dfused + head_dim, dk, cosine, sine, Accumulator<T>{-1}, half, head_dim);
  std::copy_n(dv, head_dim, dfused + 2 * head_dim);
}

}  // namespace flasheva
