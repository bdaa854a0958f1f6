// Every call of a CUDA library is checked; what it says is thrown with the call, file and line.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace flasheva {

class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline void check_cuda(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  throw CudaError(std::string(file) + ":" + std::to_string(line) + ": " + call + ": " +
                  cudaGetErrorName(status) + ": " + cudaGetErrorString(status));
}

// The same, but false for an error that the caller expects and goes on after.
inline bool check_cuda_unless(std::initializer_list<cudaError_t> expected, cudaError_t status,
                              const char* call, const char* file, int line) {
  if (std::find(expected.begin(), expected.end(), status) == expected.end()) {
    check_cuda(status, call, file, line);
    return true;
  }
  cudaGetLastError();  // nobody else is to find it
  return false;
}

}  // namespace flasheva

#define FLASHEVA_CUDA(call) ::flasheva::check_cuda((call), #call, __FILE__, __LINE__)
// FLASHEVA_CUDA_UNLESS(call, errors...): whether it succeeded; only other errors than these are thrown.
#define FLASHEVA_CUDA_UNLESS(call, ...) \
  ::flasheva::check_cuda_unless({__VA_ARGS__}, (call), #call, __FILE__, __LINE__)
