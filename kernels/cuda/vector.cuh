// Several neighbouring elements, moved at once: a thread loads and stores 16 bytes where it can.
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/dispatch.h"

namespace flasheva {

template <class T, int count>
struct alignas(sizeof(T) * count) Vector {
  T value[count];
};

// Elements of type T in 16 bytes.
template <class T>
inline constexpr int vector_width = 16 / sizeof(T);

template <int count, class T>
__device__ inline Vector<T, count> load_vector(const T* elements) {
  return *reinterpret_cast<const Vector<T, count>*>(elements);
}
template <int count, class T>
__device__ inline void store_vector(T* elements, const Vector<T, count>& vector) {
  *reinterpret_cast<Vector<T, count>*>(elements) = vector;
}
// The same in one instruction also where the compiler, left alone, parts the vector into its elements.
template <int count, class T>
__device__ inline void store_whole(T* elements, const Vector<T, count>& vector) {
  if constexpr (sizeof(vector) == sizeof(uint4))
    __stwb(reinterpret_cast<uint4*>(elements), std::bit_cast<uint4>(vector));
  else
    store_vector(elements, vector);
}

// The element as its accumulator's type.
template <class T>
__device__ inline Accumulator<T> widened(T x) {
  return static_cast<Accumulator<T>>(x);
}

}  // namespace flasheva
