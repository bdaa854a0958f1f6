// Working memory of the calling thread, cut into the pieces of a layout: it is kept from call to call and
// only grows, so that a step allocates nothing once every operation has run.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/growing_buffer.h"

namespace flasheva {

// Hands out aligned pieces of one block, one after the other. With no block it only adds up what would be
// taken.
class Carver {
 public:
  explicit Carver(std::byte* memory = nullptr) : memory_(memory) {}

  template <class R>
  R* take(std::int64_t count) {
    R* piece = memory_ == nullptr ? nullptr : reinterpret_cast<R*>(memory_ + bytes_);
    bytes_ += (count * static_cast<std::int64_t>(sizeof(R)) + 63) / 64 * 64;
    return piece;
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  std::byte* memory_;
  std::int64_t bytes_ = 0;
};

// A Layout takes its pieces from a Carver in its constructor. It is built twice, first to measure, then over
// the buffer's memory; the pieces hold garbage and are valid until the buffer is used again.
template <class Layout, class... Sizes>
Layout carve(GrowingBuffer& buffer, const Sizes&... sizes) {
  Carver measure;
  static_cast<void>(Layout(measure, sizes...));
  Carver carver(buffer.take<std::byte>(measure.bytes()));
  return Layout(carver, sizes...);
}

// The same in memory of the calling thread's own.
template <class Layout, class... Sizes>
Layout carve_thread_memory(const Sizes&... sizes) {
  thread_local GrowingBuffer memory;
  return carve<Layout>(memory, sizes...);
}

}  // namespace flasheva
