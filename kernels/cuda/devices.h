// The GPUs of this machine. Callable from host code; no device types.
#pragma once

#include <string>
#include <vector>

namespace flasheva {

// How many can be used; 0 without a driver.
int count_cuda_devices();

// One line a GPU: name, memory, compute capability. A single line with the reason where none can be used.
std::vector<std::string> describe_cuda_devices();

}  // namespace flasheva
