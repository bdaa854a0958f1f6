// sums[j] += sum over i of x[i][j], for a matrix of many rows: the gradient of a bias. The order of additions
// depends on the shape and the GPU alone.
#pragma once

#include "kernels/cuda/device_scratch.h"
#include "kernels/cuda/rows.cuh"

namespace flasheva {

// Block (x, y) sums the 32 * width columns from blockIdx.x on, over the `rows_a_block` rows from blockIdx.y
// on: a lane `width` columns, warp w of W rows w, w + W and so on. Then the warps' sums are added in order,
// and with them, where `add` says so, what sums has. Row blockIdx.y of sums is the result.
template <int threads, int width, class T>
__global__ void __launch_bounds__(threads)
    column_sums_kernel(Accumulator<T>* sums, const T* x, std::int64_t rows, std::int64_t columns,
                       std::int64_t rows_a_block, bool add) {
  using A = Accumulator<T>;
  constexpr int warps = threads / warp_size;
  __shared__ Vector<A, width> of_warp[warps][warp_size];
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.x) * warp_size + lane) * width;
  const std::int64_t first = blockIdx.y * rows_a_block;
  const std::int64_t last = first + rows_a_block < rows ? first + rows_a_block : rows;
  Vector<A, width> sum{};
  if (column < columns) {
#pragma unroll 4
    for (std::int64_t row = first + warp; row < last; row += warps) {
      const auto loaded = load_vector<width>(x + row * columns + column);
#pragma unroll
      for (int i = 0; i < width; ++i) sum.value[i] += widened(loaded.value[i]);
    }
  }
  of_warp[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= columns) return;
  A* into = sums + blockIdx.y * columns + column;
  for (int other = 1; other < warps; ++other)
#pragma unroll
    for (int i = 0; i < width; ++i) sum.value[i] += of_warp[other][lane].value[i];
#pragma unroll
  for (int i = 0; i < width; ++i) into[i] = add ? into[i] + sum.value[i] : sum.value[i];
}

// Adds the column sums of partial results, up to some hundred rows: many warps, since nothing else hides the
// time that a load takes.
template <class A>
void add_partial_sums(cudaStream_t stream, A* sums, const A* partials, std::int64_t rows,
                      std::int64_t columns) {
  constexpr int threads = 1024;
  launch(stream, column_sums_kernel<threads, 1, A>, {divide_up(columns, warp_size)}, threads, 0, sums,
         partials, rows, columns, rows, true);
}

// Adds the column sums of x (rows, columns): first of blocks of rows, as many as fill the GPU, then of these.
template <class T>
void add_column_sums(cudaStream_t stream, DeviceScratch& scratch, int multiprocessors, Accumulator<T>* sums,
                     const T* x, std::int64_t rows, std::int64_t columns) {
  constexpr int threads = 256, width = vector_width<T>;
  constexpr std::int64_t rows_at_least = 64, blocks_a_multiprocessor = 4;
  const bool aligned = rows_are_aligned<width>(columns, x);
  const std::int64_t across = divide_up(columns, warp_size * (aligned ? width : 1));
  const std::int64_t blocks = divide_up(multiprocessors * blocks_a_multiprocessor, across);
  const std::int64_t rows_a_block = std::max(rows_at_least, divide_up(rows, blocks));
  const std::int64_t down = divide_up(rows, rows_a_block);
  auto* partials = scratch.take<Accumulator<T>>(down * columns);
  launch(stream, aligned ? column_sums_kernel<threads, width, T> : column_sums_kernel<threads, 1, T>,
         {across, down}, threads, 0, partials, x, rows, columns, rows_a_block, false);
  add_partial_sums(stream, sums, partials, down, columns);
}

}  // namespace flasheva
