// How operations start kernels, and what every kernel shares: dynamic shared memory and checked launches.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/dynamic_shared.cuh"
#include "kernels/cuda/error.h"
#include "kernels/dispatch.h"

namespace flasheva {

inline constexpr int warp_size = 32;

// True for a present tensor in this device's memory of this type and shape.
inline bool matches_on_gpu(const Tensor& tensor, DType dtype, const Shape& shape) {
  return matches_on(Device::cuda, tensor, dtype, shape);
}

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

struct Grid {
  std::int64_t x = 1, y = 1, z = 1;
};

// Starts `kernel` on `grid` blocks of `threads`; none where a dimension is 0.
template <class... Parameters, class... Arguments>
void launch(cudaStream_t stream, void (*kernel)(Parameters...), Grid grid, int threads,
            std::size_t shared_bytes, Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  constexpr std::size_t default_shared_bytes = 48 << 10;
  if (shared_bytes > default_shared_bytes)
    FLASHEVA_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(shared_bytes)));
  cudaLaunchConfig_t config{};
  config.gridDim =
      dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  FLASHEVA_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

}  // namespace flasheva
