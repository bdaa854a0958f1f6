// The rotation of one head's query or key, half against half:
//     [x1 | x2] -> [x1 cos - x2 sin | x2 cos + x1 sin]
// A head's row is shared out to threads in units of `width` elements: first those that turn, two vectors
// each, then those that stay.
#pragma once

#include <cmath>

#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/vector.cuh"

namespace flasheva {

// Units of a row of `head_dim` elements whose first 2 half turn.
__host__ __device__ constexpr int rotary_units(int head_dim, int half, int width) {
  return (head_dim - half) / width;
}

// x turned, with its partner of the other half: -x2 of x1, x1 of x2. The rounding is said, so that every
// kernel gives the same bits; a compiler would fuse one product here and the other there.
template <class A>
__device__ inline A turned(A x, A partner, A cosine, A sine) {
  return std::fma(partner, sine, x * cosine);
}

// One unit of out (d) = in (d) turned by the angles of one position, (half) cosines and sines; direction -1
// turns back.
template <int width, class T>
__device__ inline void turn_unit(T* out, const T* in, const Accumulator<T>* cosine,
                                 const Accumulator<T>* sine, Accumulator<T> direction, int half, int unit) {
  using A = Accumulator<T>;
  const int i = unit * width;
  if (i >= half) {
    store_vector(out + half + i, load_vector<width>(in + half + i));
    return;
  }
  auto first = load_vector<width>(in + i), second = load_vector<width>(in + half + i);
  const auto cosines = load_vector<width>(cosine + i), sines = load_vector<width>(sine + i);
#pragma unroll
  for (int j = 0; j < width; ++j) {
    const A x1 = widened(first.value[j]), x2 = widened(second.value[j]), turn = direction * sines.value[j];
    first.value[j] = static_cast<T>(turned(x1, -x2, cosines.value[j], turn));
    second.value[j] = static_cast<T>(turned(x2, x1, cosines.value[j], turn));
  }
  store_vector(out + i, first);
  store_vector(out + half + i, second);
}

// True where rows of these sizes at these addresses may be taken 16 bytes of T at a time; the tables, of
// accumulators, are read as wide.
template <class T, class... Pointers>
bool turns_in_vectors(int head_dim, int half, const Accumulator<T>* cosine, const Accumulator<T>* sine,
                      Pointers... rows) {
  constexpr int width = vector_width<T>;
  const std::size_t table = width * sizeof(Accumulator<T>);
  return head_dim % width == 0 && half % width == 0 && aligned_to(cosine, table) && aligned_to(sine, table) &&
         (aligned_to(rows, 16) && ...);
}

}  // namespace flasheva
