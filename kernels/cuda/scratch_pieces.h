// Scratch memory of an operation, cut into tensors. A layout takes its pieces in its constructor; it is built
// twice, first to measure, then over the memory (device_scratch.h). A plan only measures.
#pragma once

#include "kernels/tensor.h"

namespace flasheva {

class ScratchPieces {
 public:
  static constexpr std::size_t alignment = 256;  // which cuBLASLt asks of its workspace

  explicit ScratchPieces(std::byte* memory = nullptr) : memory_(memory) {}

  Tensor take(DType dtype, const Shape& shape) {
    Tensor piece{memory_ == nullptr ? nullptr : memory_ + bytes_, dtype, shape, Device::cuda};
    bytes_ += (piece.bytes() + alignment - 1) / alignment * alignment;
    return piece;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::byte* memory_;
  std::size_t bytes_ = 0;
};

template <class Layout, class... Sizes>
std::size_t scratch_bytes(const Sizes&... sizes) {
  ScratchPieces measure;
  static_cast<void>(Layout(measure, sizes...));
  return measure.bytes();
}

}  // namespace flasheva
