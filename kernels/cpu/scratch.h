// Memory that an operation needs while it runs, cut by layouts: a part that its threads share, and a part of
// each. It is lent by a plan (scratch_sizes.h) or, where that is too little, the backend's own, which grows.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/device_memory.h"
#include "kernels/ops.h"

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

// What a Layout takes, which takes its pieces from a Carver in its constructor. An operation builds it over
// memory of that size; the pieces hold garbage.
template <class Layout, class... Sizes>
std::int64_t bytes_of_layout(const Sizes&... sizes) {
  Carver measure;
  static_cast<void>(Layout(measure, sizes...));
  return measure.bytes();
}

// What an operation takes, or the most that any of several does.
struct ScratchBytes {
  std::int64_t shared = 0, of_a_thread = 0;

  void cover(const ScratchBytes& other) {
    shared = std::max(shared, other.shared);
    of_a_thread = std::max(of_a_thread, other.of_a_thread);
  }
};

// Memory of each thread: a row of whole cache lines.
class ThreadMemory {
 public:
  ThreadMemory(std::byte* rows, std::int64_t row_bytes) : rows_(rows), row_bytes_(row_bytes) {}

  // The calling thread's, cut by the layout that it was taken for.
  template <class Layout, class... Sizes>
  Layout carve(const Sizes&... sizes) const {
    Carver carver(rows_ + omp_get_thread_num() * row_bytes_);
    return Layout(carver, sizes...);
  }

 private:
  std::byte* rows_;
  std::int64_t row_bytes_;
};

// (threads, bytes), for as many threads as OpenMP has now.
inline Shape thread_rows(std::int64_t bytes) { return {omp_get_max_threads(), bytes}; }

class CpuScratch {
 public:
  // Ops::lend_scratch.
  void lend(const ScratchMemory& memory);

  // Each is valid until it is taken again, by the next operation. Throws OutOfMemory.
  template <class Layout, class... Sizes>
  Layout shared(const Sizes&... sizes) {
    Carver carver(take_shared(bytes_of_layout<Layout>(sizes...)));
    return Layout(carver, sizes...);
  }
  template <class Layout, class... Sizes>
  ThreadMemory of_threads(const Sizes&... sizes) {
    return take_rows(bytes_of_layout<Layout>(sizes...));
  }

  // What it has taken beside what was lent.
  std::size_t own_bytes() const { return shared_.bytes + rows_.bytes; }

 private:
  struct Own {
    DeviceMemory memory{nullptr, nullptr};
    std::size_t bytes = 0;

    std::byte* take(std::size_t wanted);
  };

  std::byte* take_shared(std::int64_t bytes);
  ThreadMemory take_rows(std::int64_t bytes);

  ScratchMemory lent_;
  Own shared_, rows_;
};

}  // namespace flasheva
