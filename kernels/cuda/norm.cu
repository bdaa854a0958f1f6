//     sum of squares of all elements, and of the differences of two tensors, in float64
// A block adds up its share, and one block the shares of all in order: the same result on every run.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/warp.cuh"

namespace flasheva {

namespace {

constexpr int sum_threads = 256;

template <class T>
__device__ inline double as_double(T x) {
  return static_cast<double>(widened(x));
}

struct Square {
  __device__ double operator()(double x) const { return x * x; }
};
struct SquaredDifference {
  __device__ double operator()(double x, double y) const { return (x - y) * (x - y); }
};

// partials[block] = the sum of term(in[i] ...) over the block's share of the elements: every thread takes
// groups of `width`, and the first ones what is left over.
template <int width, class Term, class... In>
__global__ void __launch_bounds__(sum_threads)
    partial_sums_kernel(double* partials, std::int64_t size, Term term, const In*... in) {
  __shared__ double shared[sum_threads / warp_size];
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * sum_threads;
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * sum_threads + threadIdx.x;
  const std::int64_t groups = size / width;
  double sum = 0;
#pragma unroll 4
  for (std::int64_t group = thread; group < groups; group += stride) {
    const auto add = [&](const Vector<In, width>&... loaded) {
#pragma unroll
      for (int i = 0; i < width; ++i) sum += term(as_double(loaded.value[i])...);
    };
    add(load_vector<width>(in + group * width)...);
  }
  const std::int64_t rest = groups * width + thread;
  if (rest < size) sum += term(as_double(in[rest])...);
  sum = block_sum<sum_threads>(sum, shared);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(sum_threads)
    total_kernel(double* total, const double* partials, int count) {
  __shared__ double shared[sum_threads / warp_size];
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += sum_threads) sum += partials[i];
  sum = block_sum<sum_threads>(sum, shared);
  if (threadIdx.x == 0) *total = sum;
}

// *sum = the sum of term(in[i] ...) over all elements; partials has room for `blocks`.
template <class Term, class T, class... In>
void sum_elements(cudaStream_t stream, double* sum, double* partials, std::int64_t blocks, std::int64_t size,
                  Term term, const T* first, const In*... others) {
  constexpr int width = vector_width<T>;
  const auto start = [&](auto kernel) {
    launch(stream, kernel, {blocks}, sum_threads, 0, partials, size, term, first, others...);
  };
  if (aligned_to(first, 16) && (aligned_to(others, 16) && ...))
    start(partial_sums_kernel<width, Term, T, In...>);
  else
    start(partial_sums_kernel<1, Term, T, In...>);
  launch(stream, total_kernel, {1}, sum_threads, 0, sum, partials, blocks);
}

// Blocks that fill the GPU, as far as each has work for all its threads.
std::int64_t blocks_of_sum(std::int64_t size, int multiprocessors) {
  constexpr std::int64_t elements_a_block = 8 * sum_threads, blocks_a_multiprocessor = 8;
  return std::min(divide_up(size, elements_a_block), multiprocessors * blocks_a_multiprocessor);
}

}  // namespace

void CudaOps::sums_of_squares(std::span<double> sums, std::span<const Tensor> tensors) {
  FLASHEVA_CHECK(sums.size() == tensors.size());
  const auto count = static_cast<std::int64_t>(tensors.size());
  std::int64_t most_blocks = 0;
  for (const Tensor& x : tensors) {
    FLASHEVA_CHECK(matches_on_gpu(x, x.dtype, x.shape));
    most_blocks = std::max(most_blocks, blocks_of_sum(x.size(), multiprocessors_));
  }
  auto* on_gpu = scratch_.take<double>(count + most_blocks, "the norm of the gradients");
  for (std::int64_t i = 0; i < count; ++i) {
    const Tensor& x = tensors[static_cast<std::size_t>(i)];
    dispatch(x.dtype, [&]<class T>(T) {
      sum_elements(stream_, on_gpu + i, on_gpu + count, blocks_of_sum(x.size(), multiprocessors_), x.size(),
                   Square{}, static_cast<const T*>(x.as<T>()));
    });
  }
  copy(view_of(sums.data(), {count}), Tensor{on_gpu, DType::f64, {count}, Device::cuda});
}

double CudaOps::squared_distance(Tensor x, Tensor y) {
  FLASHEVA_CHECK(matches_on_gpu(x, x.dtype, x.shape) && matches_on_gpu(y, x.dtype, x.shape));
  const std::int64_t blocks = blocks_of_sum(x.size(), multiprocessors_);
  auto* sums = scratch_.take<double>(1 + blocks, "a distance");
  dispatch(x.dtype, [&]<class T>(T) {
    sum_elements(stream_, sums, sums + 1, blocks, x.size(), SquaredDifference{},
                 static_cast<const T*>(x.as<T>()), static_cast<const T*>(y.as<T>()));
  });
  double total = 0;
  copy(view_of(&total, {1}), Tensor{sums, DType::f64, {1}, Device::cuda});
  return total;
}

}  // namespace flasheva
