// The GPUs of this machine. Callable from host code; no device types.
#pragma once

#include <string>
#include <vector>

namespace flasheva {

// The numbers of those that can be used: of compute capability 8.0 or later, for which the kernels are built.
// None without a driver.
std::vector<int> usable_cuda_devices();

// One line a GPU, by number: name, memory, compute capability, and whether that is too old. A single line
// with the reason where there is none.
std::vector<std::string> describe_cuda_devices();

}  // namespace flasheva
