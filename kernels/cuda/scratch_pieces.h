// Scratch memory of an operation, cut into tensors. A layout takes its pieces in its constructor; it is built
// twice, first to measure, then over the memory.
#pragma once

#include "kernels/cuda/device_scratch.h"

namespace flasheva {

class ScratchPieces {
 public:
  explicit ScratchPieces(std::byte* memory = nullptr) : memory_(memory) {}

  Tensor take(DType dtype, const Shape& shape) {
    Tensor piece{memory_ == nullptr ? nullptr : memory_ + bytes_, dtype, shape, Device::cuda};
    constexpr std::size_t alignment = 256;
    bytes_ += (piece.bytes() + alignment - 1) / alignment * alignment;
    return piece;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::byte* memory_;
  std::size_t bytes_ = 0;
};

template <class Layout, class... Sizes>
Layout carve(DeviceScratch& scratch, const char* operation, const Sizes&... sizes) {
  ScratchPieces measure;
  static_cast<void>(Layout(measure, sizes...));
  ScratchPieces pieces(scratch.take<std::byte>(static_cast<std::int64_t>(measure.bytes()), operation));
  return Layout(pieces, sizes...);
}

}  // namespace flasheva
