// sums[j] += sum over i of x[i][j], for a matrix of many rows: the gradient of a bias. The order of additions
// depends on the shape and the GPU alone.
#pragma once

#include "kernels/cuda/device_scratch.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/scratch_layouts.h"

namespace flasheva {

// Terms of a sum: the elements of a matrix. at<width>(i) gives `width` of them, from element i on; a thread
// asks for `rows_at_once` rows before it adds.
template <class T>
struct Elements {
  using A = Accumulator<T>;
  static constexpr int widest = vector_width<T>, rows_at_once = 4;
  const T* x;

  bool aligned(std::int64_t columns) const { return rows_are_aligned<widest>(columns, x); }
  template <int width>
  __device__ Vector<A, width> at(std::int64_t i) const {
    const auto loaded = load_vector<width>(x + i);
    Vector<A, width> terms;
#pragma unroll
    for (int j = 0; j < width; ++j) terms.value[j] = widened(loaded.value[j]);
    return terms;
  }
};

// Block (x, y) sums the 32 * width columns from blockIdx.x on, over the `rows_a_block` rows from blockIdx.y
// on: a lane `width` columns, warp w of W rows w, w + W and so on. Then the warps' sums are added in order,
// and with them, where `add` says so, what sums has. Row blockIdx.y of sums is the result.
template <int threads, int width, class Terms>
__global__ void __launch_bounds__(threads)
    column_sums_kernel(typename Terms::A* sums, Terms terms, std::int64_t rows, std::int64_t columns,
                       std::int64_t rows_a_block, bool add) {
  using A = typename Terms::A;
  constexpr int warps = threads / warp_size;
  __shared__ Vector<A, width> of_warp[warps][warp_size];
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.x) * warp_size + lane) * width;
  const std::int64_t first = blockIdx.y * rows_a_block;
  const std::int64_t last = first + rows_a_block < rows ? first + rows_a_block : rows;
  Vector<A, width> sum{};
  if (column < columns) {
#pragma unroll(Terms::rows_at_once)
    for (std::int64_t row = first + warp; row < last; row += warps) {
      const auto term = terms.template at<width>(row * columns + column);
#pragma unroll
      for (int i = 0; i < width; ++i) sum.value[i] += term.value[i];
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
  launch(stream, column_sums_kernel<threads, 1, Elements<A>>, {divide_up(columns, warp_size)}, threads, 0,
         sums, Elements<A>{partials}, rows, columns, rows, true);
}

// Adds the column sums of terms (rows, columns): first of blocks of rows, as many as fill the GPU, then of
// these. Each term is taken once, also where sums is null.
template <class Terms, class A = typename Terms::A>
void add_column_sums(cudaStream_t stream, DeviceScratch& scratch, int multiprocessors, A* sums, Terms terms,
                     std::int64_t rows, std::int64_t columns) {
  constexpr int threads = ColumnSumsGrid::threads, width = Terms::widest;
  const bool aligned = terms.aligned(columns);
  const auto kernel =
      aligned ? column_sums_kernel<threads, width, Terms> : column_sums_kernel<threads, 1, Terms>;
  const ColumnSumsGrid grid(rows, columns, aligned ? width : 1,
                            resident_blocks(multiprocessors, kernel, threads));
  A* partials = scratch.carve<ColumnSumsScratch>("the gradient of a bias", DTypeOf<A>::value, grid, columns)
                    .partials.template as<A>();
  launch(stream, kernel, {grid.across, grid.down}, threads, 0, partials, terms, rows, columns,
         grid.rows_a_block, false);
  if (sums != nullptr) add_partial_sums(stream, sums, partials, grid.down, columns);
}

}  // namespace flasheva
