#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/philox.h"
#include "tests/support/philox_words.h"

namespace flasheva {

namespace {

__global__ void philox_kernel(PhiloxWords* words, std::int64_t size, std::uint64_t seed) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size) words[i] = philox4x32(words[i], seed);
}

}  // namespace

void philox_on_gpu(Ops& ops, Tensor words, std::uint64_t seed) {
  FLASHEVA_CHECK(matches_on_gpu(words, DType::i32, {words.dim(0), 4}));
  constexpr int threads = 256;
  launch(static_cast<CudaOps&>(ops).stream(), philox_kernel, {divide_up(words.dim(0), threads)}, threads, 0,
         static_cast<PhiloxWords*>(words.data), words.dim(0), seed);
}

}  // namespace flasheva
