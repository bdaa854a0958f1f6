// Memory that an operation needs while it runs, owned by the backend. It only grows, so that a training step,
// whose shapes repeat, allocates nothing after its first run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace flasheva {

class GrowingBuffer {
 public:
  // Uninitialised memory for `count` elements, aligned to cache lines; what it held before is lost, and it is
  // valid until the next call. Throws std::bad_alloc.
  template <class T>
  T* take(std::int64_t count) {
    const std::size_t bytes = (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    if (bytes > capacity_) {
      memory_.reset();
      capacity_ = 0;
      memory_.reset(std::aligned_alloc(64, bytes));
      if (memory_ == nullptr) throw std::bad_alloc();
      capacity_ = bytes;
    }
    return static_cast<T*>(memory_.get());
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  std::size_t capacity_ = 0;
};

}  // namespace flasheva
