// On ordinary operands, rounding to 16 bits hides in which order a sum was added in all but one of thousands
// of results, and operands that are zero, as gradients may be, hide it in all. Here every sum begins with
// 2^18 and ends with -2^18. Beside that, what is added in between loses its last bits, other ones in another
// order, and what is left when both are gone shows it: by calculation a fifth or more of the results, even in
// bfloat16.
#include "kernels/cuda/gemm_trial.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/scratch_pieces.h"
#include "kernels/philox.h"

namespace flasheva {

namespace {

// Normal numbers; of every `terms` elements, which are `stride` apart, the first is 2^9 and the last `last`.
template <class T>
__global__ void __launch_bounds__(256) fill_kernel(T* out, std::int64_t size, std::int64_t stride,
                                                   std::int64_t terms, float last, std::uint32_t stream) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= size) return;
  const std::int64_t term = i / stride % terms;
  const float random = stream_normals(0, stream, static_cast<std::uint64_t>(i)).value[0];
  out[i] = static_cast<T>(term == 0 ? 512 : term == terms - 1 ? last : random);
}

void fill(cudaStream_t stream, const Tensor& out, std::int64_t stride, std::int64_t terms, float last,
          std::uint32_t numbers) {
  dispatch(out.dtype, [&]<class T>(T) {
    launch(stream, fill_kernel<T>, {divide_up(out.size(), 256)}, 256, 0, out.as<T>(), out.size(), stride,
           terms, last, numbers);
  });
}

// What products are added to: a number between 0 and 2, whatever the type.
void fill_with_any(cudaStream_t stream, const Tensor& out) {
  FLASHEVA_CUDA(cudaMemsetAsync(out.data, 0x3f, out.bytes(), stream));
}

__global__ void __launch_bounds__(256)
    compare_kernel(int* differ, const std::uint16_t* x, const std::uint16_t* y, std::int64_t size) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i < size && x[i] != y[i]) *differ = 1;
}

}  // namespace

ProductTrial::ProductTrial(cudaStream_t stream, const Product& product) : stream_(stream) {
  const std::int64_t m = product.m, n = product.n, k = product.k;
  const auto place_tensors = [&](ScratchPieces pieces) {
    a_ = pieces.take(product.in, {m, k});
    b_ = pieces.take(product.in, {k, n});
    bias_ = pieces.take(product.out, {n});
    first_ = pieces.take(product.out, {m, n});
    second_ = pieces.take(product.out, {m, n});
    differ_ = pieces.take(DType::i32, {1});
    return pieces.bytes();
  };
  void* memory = nullptr;
  if (!FLASHEVA_CUDA_UNLESS(cudaMalloc(&memory, place_tensors(ScratchPieces())), cudaErrorMemoryAllocation))
    return;
  memory_ = CudaMemory<std::byte>(static_cast<std::byte*>(memory));
  place_tensors(ScratchPieces(memory_));
  fill(stream_, a_, product.a_transposed ? m : 1, k, 512, 0);
  fill(stream_, b_, product.b_transposed ? 1 : n, k, -512, 1);
  fill_with_any(stream_, bias_);
}

Operands ProductTrial::operands_for(const Tensor& result) const {
  fill_with_any(stream_, result);
  return {a_.data, b_.data, bias_.data, result.data, result.data};
}

bool ProductTrial::are_equal() const {
  const auto size = static_cast<std::int64_t>(first_.bytes() / sizeof(std::uint16_t));
  FLASHEVA_CUDA(cudaMemsetAsync(differ_.data, 0, differ_.bytes(), stream_));
  launch(stream_, compare_kernel, {divide_up(size, 256)}, 256, 0, static_cast<int*>(differ_.data),
         static_cast<const std::uint16_t*>(first_.data), static_cast<const std::uint16_t*>(second_.data),
         size);
  int differ = 0;
  FLASHEVA_CUDA(cudaMemcpyAsync(&differ, differ_.data, sizeof(int), cudaMemcpyDefault, stream_));
  FLASHEVA_CUDA(cudaStreamSynchronize(stream_));
  return differ == 0;
}

}  // namespace flasheva
