// Rows of matrices in vectors.
#pragma once

#include "kernels/cuda/elementwise.cuh"

namespace flasheva {

// Whether every row of `columns` elements of these matrices begins at a multiple of `width` elements, so that
// load_vector<width> reads it. Absent matrices are.
template <int width, class... T>
bool rows_are_aligned(std::int64_t columns, const T*... matrices) {
  return columns % width == 0 && (aligned_to(matrices, width * sizeof(T)) && ...);
}

}  // namespace flasheva
