// How operations start kernels, and what every kernel shares: dynamic shared memory and checked launches.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/divide_up.h"
#include "kernels/cuda/dynamic_shared.cuh"
#include "kernels/cuda/error.h"
#include "kernels/dispatch.h"

namespace flasheva {

inline constexpr int warp_size = 32;

// True for a present tensor in this device's memory of this type and shape.
inline bool matches_on_gpu(const Tensor& tensor, DType dtype, const Shape& shape) {
  return matches_on(Device::cuda, tensor, dtype, shape);
}

// Shared memory that a block can have on every GPU that this code runs on (sm_86, 89 and 120 have no more).
inline constexpr std::size_t smallest_shared_bytes = 99 << 10;

// Lets blocks of `kernel` have more shared memory than the 48 KB that need no asking.
template <class... Parameters>
void reserve_shared(void (*kernel)(Parameters...), std::size_t bytes) {
  constexpr std::size_t default_bytes = 48 << 10;
  if (bytes <= default_bytes) return;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (status == cudaSuccess) return;
  std::string call = "cudaFuncSetAttribute";
  if (status == cudaErrorInvalidValue)  // what a GPU says that has less
    call += ": a block needs " + std::to_string(bytes >> 10) +
            " KB of shared memory, more than this GPU has: take smaller chunks or heads";
  check_cuda(status, call.c_str(), __FILE__, __LINE__);
}

// Blocks of `kernel` that a GPU holds at once: one more would make it begin anew for a few.
template <class... Parameters>
std::int64_t resident_blocks(int multiprocessors, void (*kernel)(Parameters...), int threads) {
  int of_one = 0;
  FLASHEVA_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&of_one, kernel, threads, 0));
  if (of_one == 0) of_one = 1;  // the launch will say why none fits
  return static_cast<std::int64_t>(multiprocessors) * of_one;
}

struct Grid {
  std::int64_t x = 1, y = 1, z = 1;
};

// Starts `kernel` on `grid` blocks of `threads`; none where a dimension is 0.
template <class... Parameters, class... Arguments>
void launch(cudaStream_t stream, void (*kernel)(Parameters...), Grid grid, int threads,
            std::size_t shared_bytes, const Arguments&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  reserve_shared(kernel, shared_bytes);
  cudaLaunchConfig_t config{};
  config.gridDim =
      dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  FLASHEVA_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

}  // namespace flasheva
