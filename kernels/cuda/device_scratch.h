// Memory that an operation needs while it runs: lent by a plan or, where that is too little, the backend's
// own, the twin of cpu/scratch.h. The next operation on the same stream may take it again.
#pragma once

#include "kernels/cuda/owned.h"
#include "kernels/cuda/scratch_pieces.h"
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
  // The same, cut by a layout.
  template <class Layout, class... Sizes>
  Layout carve(const char* operation, const Sizes&... sizes) {
    ScratchPieces pieces(static_cast<std::byte*>(take_bytes(scratch_bytes<Layout>(sizes...), operation)));
    return Layout(pieces, sizes...);
  }
  // Takes from these bytes, aligned as above, from now on; null: there are none.
  void lend(void* memory, std::size_t bytes);
  // How often the memory has given way to other memory.
  std::int64_t moves() const { return moves_; }

 private:
  void* take_bytes(std::size_t bytes, const char* operation);

  CudaMemory<std::byte> own_;
  void* memory_ = nullptr;
  std::size_t capacity_ = 0;
  std::int64_t moves_ = 0;
};

// cudaMalloc; throws OutOfMemory that says how much `wants` asked for and how much is free.
void* allocate_on_gpu(std::size_t bytes, const char* wants);

}  // namespace flasheva
