// Memory that an operation needs while it runs, owned by the backend: the twin of cpu/growing_buffer.h. The
// next operation on the same stream may take it again.
#pragma once

#include "kernels/cuda/error.h"
#include "kernels/ops.h"

namespace flasheva {

class DeviceScratch {
 public:
  // Uninitialised device memory for `count` elements, aligned to 256 bytes; what it held before is lost.
  // Where there is not enough, OutOfMemory names `operation`.
  template <class T>
  T* take(std::int64_t count, const char* operation) {
    return static_cast<T*>(take_bytes(static_cast<std::size_t>(count) * sizeof(T), operation));
  }
  // How often the memory has given way to more.
  std::int64_t growths() const { return growths_; }
  ~DeviceScratch() { cudaFree(memory_); }
  DeviceScratch() = default;
  DeviceScratch(const DeviceScratch&) = delete;
  DeviceScratch& operator=(const DeviceScratch&) = delete;

 private:
  void* take_bytes(std::size_t bytes, const char* operation);

  void* memory_ = nullptr;
  std::size_t capacity_ = 0;
  std::int64_t growths_ = 0;
};

// cudaMalloc; throws OutOfMemory that says how much `wants` asked for and how much is free.
void* allocate_on_gpu(std::size_t bytes, const char* wants);

}  // namespace flasheva
