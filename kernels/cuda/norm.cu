//     sum of squares of all elements, and of the differences of two tensors, in float64
// A block adds up a share of fixed size, and one block the shares of a tensor in order: the same result on
// every run and every GPU, whatever else is summed. One launch does so for as many tensors as a table holds.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/scratch_layouts.h"
#include "kernels/cuda/tensor_table.cuh"
#include "kernels/cuda/warp.cuh"

namespace flasheva {

namespace {

constexpr int sum_threads = 256;
constexpr std::int64_t elements_a_block = SquaresScratch::elements_a_block;

// What is squared: the elements of x, or those of x - y.
struct Terms {
  const void* x;
  const void* y;  // null where it is x alone
  std::int64_t size;
};

template <class T>
__device__ inline double as_double(T x) {
  return static_cast<double>(widened(x));
}

template <int count, bool aligned, class T>
__device__ inline Vector<T, count> load_neighbours(const T* elements) {
  if constexpr (aligned) {
    return load_vector<count>(elements);
  } else {
    Vector<T, count> vector;
#pragma unroll
    for (int i = 0; i < count; ++i) vector.value[i] = elements[i];
    return vector;
  }
}

// What one thread of a block adds up of `size` elements: groups of neighbours, and the first threads one each
// of what is left over. It does not depend on how the groups are loaded.
template <bool aligned, bool differences, class T>
__device__ inline double sum_of_thread(const T* x, const T* y, int size) {
  constexpr int width = vector_width<T>;
  const int thread = static_cast<int>(threadIdx.x), groups = size / width;
  double sum = 0;
  const auto add_square = [&](const T& x_i, const T& y_i) {
    const double term = differences ? as_double(x_i) - as_double(y_i) : as_double(x_i);
    sum += term * term;
  };
#pragma unroll 4
  for (int group = thread; group < groups; group += sum_threads) {
    const auto xs = load_neighbours<width, aligned>(x + group * width);
    const auto ys = differences ? load_neighbours<width, aligned>(y + group * width) : xs;
#pragma unroll
    for (int i = 0; i < width; ++i) add_square(xs.value[i], ys.value[i]);
  }
  const int rest = groups * width + thread;
  if (rest < size) add_square(x[rest], differences ? y[rest] : x[rest]);
  return sum;
}

// partials[block] = the sum over the block's share of a tensor.
template <bool differences, class T>
__global__ void __launch_bounds__(sum_threads)
    partial_sums_kernel(double* partials, const TensorTable<Terms> table) {
  __shared__ double shared[sum_threads / warp_size];
  const int block = static_cast<int>(blockIdx.x), tensor = table.tensor_of(block);
  const Terms terms = table[tensor];
  const std::int64_t begin = (block - table.first_block(tensor)) * elements_a_block;
  const int size = static_cast<int>(min(elements_a_block, terms.size - begin));
  const T* x = static_cast<const T*>(terms.x) + begin;
  const T* y = differences ? static_cast<const T*>(terms.y) + begin : nullptr;
  const auto address = reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(y);
  const double sum = address % 16 == 0 ? sum_of_thread<true, differences>(x, y, size)
                                       : sum_of_thread<false, differences>(x, y, size);
  const double sum_of_all = block_sum<sum_threads>(sum, shared);
  if (threadIdx.x == 0) partials[block] = sum_of_all;
}

// A block a tensor: sums[tensor] = its partials.
__global__ void __launch_bounds__(sum_threads)
    totals_kernel(double* sums, const double* partials, const TensorTable<Terms> table) {
  __shared__ double shared[sum_threads / warp_size];
  const int tensor = static_cast<int>(blockIdx.x);
  const int end = table.first_block(tensor + 1);
  double sum = 0;
  for (int i = table.first_block(tensor) + static_cast<int>(threadIdx.x); i < end; i += sum_threads)
    sum += partials[i];
  sum = block_sum<sum_threads>(sum, shared);
  if (threadIdx.x == 0) sums[tensor] = sum;
}

std::int64_t blocks_of(const Tensor& x) { return divide_up(x.size(), elements_a_block); }

// sums[i] = of tensor i of the table; all are of type T. partials has room for its blocks.
template <bool differences, class T>
void sum_tensors(cudaStream_t stream, double* sums, double* partials, const TensorTable<Terms>& table) {
  launch(stream, partial_sums_kernel<differences, T>, {table.blocks()}, sum_threads, 0, partials, table);
  launch(stream, totals_kernel, {table.size()}, sum_threads, 0, sums, partials, table);
}

}  // namespace

void CudaOps::sums_of_squares(std::span<double> sums, std::span<const Tensor> tensors) {
  FLASHEVA_CHECK(sums.size() == tensors.size());
  if (tensors.empty()) return;  // a rank's share of few gradients
  const auto count = static_cast<std::int64_t>(tensors.size());
  std::int64_t blocks = 0;
  for (const Tensor& x : tensors) {
    FLASHEVA_CHECK(matches_on_gpu(x, x.dtype, x.shape));
    blocks += blocks_of(x);
  }
  const auto scratch = scratch_.carve<SquaresScratch>("the norm of the gradients", count, blocks);
  for (std::size_t next = 0; next < tensors.size();) {
    const std::size_t first = next;
    const DType type = tensors[first].dtype;
    TensorTable<Terms> table;
    for (; next < tensors.size() && tensors[next].dtype == type && !table.full(); ++next)
      table.add({tensors[next].data, nullptr, tensors[next].size()}, blocks_of(tensors[next]));
    dispatch(type, [&]<class T>(T) {
      sum_tensors<false, T>(stream_, scratch.sums.as<double>() + first, scratch.partials.as<double>(), table);
    });
  }
  copy(view_of(sums.data(), {count}), scratch.sums);
}

double CudaOps::squared_distance(Tensor x, Tensor y) {
  FLASHEVA_CHECK(matches_on_gpu(x, x.dtype, x.shape) && matches_on_gpu(y, x.dtype, x.shape));
  const auto scratch = scratch_.carve<SquaresScratch>("a distance", std::int64_t{1}, blocks_of(x));
  TensorTable<Terms> table;
  table.add({x.data, y.data, x.size()}, blocks_of(x));
  dispatch(x.dtype, [&]<class T>(T) {
    sum_tensors<true, T>(stream_, scratch.sums.as<double>(), scratch.partials.as<double>(), table);
  });
  double total = 0;
  copy(view_of(&total, {1}), scratch.sums);
  return total;
}

}  // namespace flasheva
