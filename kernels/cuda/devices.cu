#include <cuda_runtime.h>

#include "kernels/cuda/devices.h"

namespace flasheva {

int count_cuda_devices() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

std::vector<std::string> describe_cuda_devices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) return {std::string("none: ") + cudaGetErrorString(status)};
  std::vector<std::string> lines;
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) continue;
    lines.push_back(std::string(properties.name) + ", " + std::to_string(properties.totalGlobalMem >> 20) +
                    " MiB, compute capability " + std::to_string(properties.major) + "." +
                    std::to_string(properties.minor));
  }
  return lines;
}

}  // namespace flasheva
