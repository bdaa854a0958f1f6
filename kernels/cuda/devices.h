// The GPUs of this machine. Callable from host code; no device types.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace flasheva {

// The numbers of those that can be used: of compute capability 8.0 or later, and one that this build has
// kernels for. None without a driver.
std::vector<int> usable_cuda_devices();

// One line a GPU, by number: name, memory, compute capability, and why it cannot be used if so. A single line
// with the reason where there is none.
std::vector<std::string> describe_cuda_devices();

// Whether kernels that were built for `architectures`, separated by spaces and each as
// CMAKE_CUDA_ARCHITECTURES names it, run on a GPU of compute capability `major`.`minor`: compiled ones (80,
// 80-real) where the major number is the same and the minor no less, PTX (80, 80-virtual) on all later GPUs,
// those for 90a on 9.0 alone, and those for 100f on all of major number 10. Anything else, such as "native",
// is taken to mean yes.
bool kernels_run_on(std::string_view architectures, int major, int minor);

}  // namespace flasheva
