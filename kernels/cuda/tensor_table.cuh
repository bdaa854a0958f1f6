// Many tensors in one launch ("multi-tensor apply" in PyTorch): what a kernel must know of each stands in a
// table, which is its parameter, and a block looks up on which of them it works.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/check.h"

namespace flasheva {

template <class Entry>
class TensorTable {
 public:
  // With the other parameters it stays below the 4096 bytes that every GPU takes.
  static constexpr int capacity = 3968 / (sizeof(Entry) + sizeof(int));

  int size() const { return size_; }
  bool full() const { return size_ == capacity; }
  // Blocks of all tensors, one tensor's behind the other's.
  std::int64_t blocks() const { return size_ == 0 ? 0 : ends_[size_ - 1]; }

  void add(const Entry& entry, std::int64_t blocks_of_entry) {
    FLASHEVA_CHECK(!full());
    ends_[size_] = static_cast<int>(blocks() + blocks_of_entry);
    entries_[size_++] = entry;
  }

  __device__ const Entry& operator[](int i) const { return entries_[i]; }
  // The blocks of tensor i are first_block(i) .. first_block(i + 1) - 1.
  __device__ int first_block(int i) const { return i == 0 ? 0 : ends_[i - 1]; }
  // The tensor of a block.
  __device__ int tensor_of(int block) const {
    int first = 0, last = size_ - 1;
    while (first < last) {
      const int middle = (first + last) / 2;
      if (block < ends_[middle])
        last = middle;
      else
        first = middle + 1;
    }
    return first;
  }

 private:
  Entry entries_[capacity] = {};
  int ends_[capacity] = {}, size_ = 0;
};

}  // namespace flasheva
