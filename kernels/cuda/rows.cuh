// Rows of matrices in vectors.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/elementwise.cuh"

namespace flasheva {

// Whether every row of `columns` elements of these matrices begins at a multiple of `width` elements, so that
// load_vector<width> reads it. Absent matrices are.
template <int width, class... T>
bool rows_are_aligned(std::int64_t columns, const T*... matrices) {
  return columns % width == 0 && (aligned_to(matrices, width * sizeof(T)) && ...);
}

// body(first, count) for all elements of a row of `size`: `width` neighbours at once from the first address
// on that is a multiple of 16 bytes, one by one before and behind. count is known at compile time.
template <int threads, class T, class Body>
__device__ inline void for_row(const T* row, std::int32_t size, const Body& body) {
  constexpr int width = vector_width<T>;
  const auto misplaced = static_cast<std::int32_t>(reinterpret_cast<std::uintptr_t>(row) % 16 / sizeof(T));
  const std::int32_t before = misplaced == 0 ? 0 : std::min(width - misplaced, size);
  const std::int32_t behind = before + (size - before) / width * width;
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  if (thread < before) body(thread, std::integral_constant<int, 1>{});
#pragma unroll 2
  for (std::int32_t i = before + thread * width; i < behind; i += threads * width)
    body(i, std::integral_constant<int, width>{});
  if (behind + thread < size) body(behind + thread, std::integral_constant<int, 1>{});
}

// Calls start(threads) for a row of `size`, known at compile time: few where it is short.
template <class Start>
void with_row_threads(std::int64_t size, const Start& start) {
  if (size < 4096)
    start(std::integral_constant<int, 64>{});
  else
    start(std::integral_constant<int, 512>{});
}

}  // namespace flasheva
