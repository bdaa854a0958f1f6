#include <cuda_runtime.h>

#include <charconv>
#include <sstream>

#include "kernels/cuda/devices.h"

namespace flasheva {

namespace {

const char* const architectures_of_build = FLASHEVA_CUDA_ARCHITECTURES;

// Why a GPU cannot be used; empty if it can.
std::string obstacle(const cudaDeviceProp& properties) {
  if (properties.major < 8) return "too old: 8.0 is needed";
  if (kernels_run_on(architectures_of_build, properties.major, properties.minor)) return "";
  return std::string("this build has kernels for ") + architectures_of_build +
         " alone: build with -DCMAKE_CUDA_ARCHITECTURES=" + std::to_string(properties.major) +
         std::to_string(properties.minor);
}

std::string describe(const cudaDeviceProp& properties) {
  const std::string line = std::string(properties.name) + ", " +
                           std::to_string(properties.totalGlobalMem >> 20) + " MiB, compute capability " +
                           std::to_string(properties.major) + "." + std::to_string(properties.minor);
  const std::string why_not = obstacle(properties);
  return why_not.empty() ? line : line + ", " + why_not;
}

bool runs_on(const std::string& architecture, int major, int minor) {
  int number = 0;
  const char* const end = architecture.data() + architecture.size();
  const auto [rest, error] = std::from_chars(architecture.data(), end, number);
  if (error != std::errc{}) return true;
  const std::string_view kind(rest, static_cast<std::size_t>(end - rest));
  const bool same_major = major == number / 10, no_less = minor >= number % 10;
  if (kind.starts_with("a")) return same_major && minor == number % 10;
  if (kind.starts_with("f") || kind == "-real") return same_major && no_less;
  return (same_major && no_less) || major > number / 10;
}

}  // namespace

bool kernels_run_on(std::string_view architectures, int major, int minor) {
  std::istringstream list{std::string(architectures)};
  for (std::string architecture; list >> architecture;)
    if (runs_on(architecture, major, minor)) return true;
  return false;
}

std::vector<int> usable_cuda_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return {};
  std::vector<int> usable;
  for (int device = 0; device < count; ++device)
    if (cudaDeviceProp properties;
        cudaGetDeviceProperties(&properties, device) == cudaSuccess && obstacle(properties).empty())
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
