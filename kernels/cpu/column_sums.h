// sums[j] += sum over n of x[n][j], for a matrix of many rows: the gradient of a bias.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/loops.h"

namespace flasheva {

// segment(n, column, width) points at the `width` elements of row n from `column` on; it is called once for
// each, also without sums, and may compute them first. Threads share the columns. A block of rows is summed
// by itself first, which keeps the error of long sums small; it is wide, as short pieces of rows a power of
// two apart took twice the time.
template <class T, class Segment>
void add_column_sums(Accumulator<T>* sums, std::int64_t rows, std::int64_t columns, const Segment& segment) {
  using A = Accumulator<T>;
  constexpr std::int64_t block_rows = 64, block_columns = 1024;
  parallel_columns(columns, rows, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = 0; row < rows; row += block_rows)
      for (std::int64_t column = first; column < last; column += block_columns) {
        const std::int64_t width = std::min(block_columns, last - column);
        A block[block_columns] = {};
        for (std::int64_t n = row; n < std::min(row + block_rows, rows); ++n) {
          const T* x = segment(n, column, width);
#pragma omp simd
          for (std::int64_t i = 0; i < width; ++i) block[i] += static_cast<A>(x[i]);
        }
        for (std::int64_t i = 0; sums && i < width; ++i) sums[column + i] += block[i];
      }
  });
}

}  // namespace flasheva
