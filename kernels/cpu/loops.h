// What every CPU operation is made of: work shared among threads. Shares are contiguous and depend on sizes
// and the number of threads alone, so results do not depend on timing.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "kernels/dispatch.h"

namespace flasheva {

// True for a present tensor in host memory of this type and shape.
inline bool matches(const Tensor& tensor, DType dtype, const Shape& shape) {
  return matches_on(Device::cpu, tensor, dtype, shape);
}

// Calls body(first, last) on every thread with its share of 0 .. count - 1, in multiples of `grain`. Work of
// few elements stays on the calling thread, where waking others would cost more than it saves.
template <class Body>
void parallel_shares(std::int64_t count, std::int64_t grain, std::int64_t elements, const Body& body) {
  constexpr std::int64_t worth_waking_threads = 16384;
  const std::int64_t grains = (count + grain - 1) / grain;
#pragma omp parallel if (elements >= worth_waking_threads)
  {
    const std::int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    const std::int64_t first = grains * thread / threads * grain;
    const std::int64_t last = std::min(count, grains * (thread + 1) / threads * grain);
    if (first < last) body(first, last);
  }
}

// Shares of rows of `width` elements each.
template <class Body>
void parallel_rows(std::int64_t rows, std::int64_t width, const Body& body) {
  parallel_shares(rows, 1, rows * width, body);
}

// Shares of a tensor's elements, or of the columns of a matrix of `height` rows; whole cache lines.
template <class Body>
void parallel_columns(std::int64_t columns, std::int64_t height, const Body& body) {
  parallel_shares(columns, 32, columns * height, body);
}
template <class Body>
void parallel_elements(std::int64_t size, const Body& body) {
  parallel_columns(size, 1, body);
}

}  // namespace flasheva
