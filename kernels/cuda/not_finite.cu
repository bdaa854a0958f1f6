//     first = min { i : an element of x_i is not finite }, -1 where there is none in the last x
// A kernel a tensor, the last one first: each that finds something writes its index over that of the one
// behind it, and all but the first return at once where the last tensor is finite.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/not_finite_contract.h"

namespace flasheva {

namespace {

constexpr int search_threads = 256;

template <class T>
__global__ void __launch_bounds__(search_threads)
    search_kernel(std::int32_t* first, const T* x, std::int64_t size, std::int32_t index, bool last) {
  if (!last && *first < 0) return;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * search_threads;
  bool finite = true;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * search_threads + threadIdx.x; i < size;
       i += stride) {
    const Accumulator<T> difference = widened(x[i]) - widened(x[i]);  // NaN where x is not finite
    finite &= difference == 0;
  }
  if (!finite) *first = index;  // whoever writes, writes the same
}

}  // namespace

void CudaOps::first_not_finite(Tensor first, std::span<const Tensor> tensors) {
  check_first_not_finite(Device::cuda, first, tensors);
  constexpr std::int64_t elements_a_block = 8 * search_threads, blocks_a_multiprocessor = 8;
  FLASHEVA_CUDA(cudaMemsetAsync(first.data, 0xff, first.bytes(), stream_));  // -1
  for (std::size_t i = tensors.size(); i-- > 0;) {
    const Tensor& x = tensors[i];
    const std::int64_t blocks =
        std::min(divide_up(x.size(), elements_a_block), multiprocessors_ * blocks_a_multiprocessor);
    dispatch(x.dtype, [&]<class T>(T) {
      launch(stream_, search_kernel<T>, {blocks}, search_threads, 0, first.as<std::int32_t>(),
             static_cast<const T*>(x.as<T>()), x.size(), static_cast<std::int32_t>(i),
             i + 1 == tensors.size());
    });
  }
}

}  // namespace flasheva
