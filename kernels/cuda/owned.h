// What CUDA makes or gives and wants back, streams, events, graphs and memory, and its one owner.
#pragma once

#include <memory>
#include <type_traits>

#include "kernels/cuda/error.h"

namespace flasheva {

// A Pointer that `give_back` is called with at the end, unless it is null. It can stand wherever a Pointer
// can.
template <class Pointer, auto give_back>
class Owned {
 public:
  Owned() = default;
  explicit Owned(Pointer pointer) : pointer_(pointer) {}
  operator Pointer() const { return pointer_.get(); }

 private:
  struct GiveBack {
    void operator()(Pointer pointer) const { give_back(pointer); }
  };
  std::unique_ptr<std::remove_pointer_t<Pointer>, GiveBack> pointer_;
};

using CudaStream = Owned<cudaStream_t, cudaStreamDestroy>;
using CudaEvent = Owned<cudaEvent_t, cudaEventDestroy>;
using CudaGraph = Owned<cudaGraph_t, cudaGraphDestroy>;
using CudaGraphExec = Owned<cudaGraphExec_t, cudaGraphExecDestroy>;
template <class T>
using CudaMemory = Owned<T*, cudaFree>;

// Of the current GPU; work on it waits for no other stream.
inline CudaStream make_stream() {
  cudaStream_t stream = nullptr;
  FLASHEVA_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return CudaStream(stream);
}

inline CudaEvent make_event(unsigned flags = cudaEventDefault) {
  cudaEvent_t event = nullptr;
  FLASHEVA_CUDA(cudaEventCreateWithFlags(&event, flags));
  return CudaEvent(event);
}

}  // namespace flasheva
