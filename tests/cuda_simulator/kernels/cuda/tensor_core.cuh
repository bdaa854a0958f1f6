// Stands for kernels/cuda/tensor_core.cuh. Copies happen when they are waited for, as late as they may on a
// GPU.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

namespace flasheva {

namespace simulator {

template <class T>
float half_of(std::uint32_t pair, unsigned half) {
  T value;
  value.bits = static_cast<std::uint16_t>(pair >> (16 * half));
  return static_cast<float>(value);
}

struct Factors {
  std::uint32_t a[4], b[2];
};

template <class T>
std::uint32_t pair_of(const T& low, const T& high) {
  return static_cast<std::uint32_t>(low.bits) | static_cast<std::uint32_t>(high.bits) << 16;
}

}  // namespace simulator

template <class T>
void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  const simulator::Exchange<simulator::Factors> all({{a[0], a[1], a[2], a[3]}, {b0, b1}});
  const unsigned g = simulator::coordinates.lane / 4, t = simulator::coordinates.lane % 4;
  float left[2][16], right[2][16];  // rows g and g + 8 of a, columns 2t and 2t + 1 of b
  for (unsigned k = 0; k < 16; k += 2)
    for (unsigned i = 0; i < 2; ++i) {
      const std::uint32_t of_a = all.of(4 * g + k % 8 / 2).a[i + k / 8 * 2],
                          of_b = all.of(4 * (2 * t + i) + k % 8 / 2).b[k / 8];
      for (unsigned half = 0; half < 2; ++half) {
        left[i][k + half] = simulator::half_of<T>(of_a, half);
        right[i][k + half] = simulator::half_of<T>(of_b, half);
      }
    }
  for (unsigned i = 0; i < 4; ++i)
    for (unsigned k = 0; k < 16; ++k) c[i] += left[i / 2][k] * right[i % 2][k];
}

template <class T>
void load_matrices(std::uint32_t (&out)[4], const T* row) {
  const simulator::Exchange<const T*> rows(row);
  const unsigned g = simulator::coordinates.lane / 4, t = simulator::coordinates.lane % 4;
  for (unsigned j = 0; j < 4; ++j) {
    const T* own = rows.of(8 * j + g);
    out[j] = simulator::pair_of(own[2 * t], own[2 * t + 1]);
  }
}

template <class T>
void load_matrices_transposed(std::uint32_t (&out)[4], const T* row) {
  const simulator::Exchange<const T*> rows(row);
  const unsigned g = simulator::coordinates.lane / 4, t = simulator::coordinates.lane % 4;
  for (unsigned j = 0; j < 4; ++j)
    out[j] = simulator::pair_of(rows.of(8 * j + 2 * t)[g], rows.of(8 * j + 2 * t + 1)[g]);
}

template <class T>
std::uint32_t pack(float low, float high) {
  return simulator::pair_of(T(low), T(high));
}

inline void copy_async(void* shared, const void* global, bool there) {
  simulator::begin_copy(shared, global, there);
}
inline void commit_copies() { simulator::end_copy_group(); }
template <int pending>
void wait_for_copies() {
  simulator::finish_copies(pending);
}

}  // namespace flasheva
