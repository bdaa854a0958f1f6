#include <cuda_runtime.h>

#include "kernels/cuda/devices.h"

namespace flasheva {

namespace {

bool is_usable(const cudaDeviceProp& properties) { return properties.major >= 8; }

std::string describe(const cudaDeviceProp& properties) {
  const std::string line = std::string(properties.name) + ", " +
                           std::to_string(properties.totalGlobalMem >> 20) + " MiB, compute capability " +
                           std::to_string(properties.major) + "." + std::to_string(properties.minor);
  return is_usable(properties) ? line : line + ", too old: 8.0 is needed";
}

}  // namespace

std::vector<int> usable_cuda_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return {};
  std::vector<int> usable;
  for (int device = 0; device < count; ++device)
    if (cudaDeviceProp properties;
        cudaGetDeviceProperties(&properties, device) == cudaSuccess && is_usable(properties))
      usable.push_back(device);
  return usable;
}

std::vector<std::string> describe_cuda_devices() {
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found != cudaSuccess) return {std::string("none: ") + cudaGetErrorString(found)};
  std::vector<std::string> lines;
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp properties;
    const cudaError_t read = cudaGetDeviceProperties(&properties, device);
    lines.push_back(read == cudaSuccess ? describe(properties) : cudaGetErrorString(read));
  }
  return lines;
}

}  // namespace flasheva
