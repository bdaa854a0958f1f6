// Owning memory, taken once and carved into tensors: nothing is allocated while a step runs.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "kernels/tensor.h"

namespace flasheva {

// One tensor that a MemoryPlan foresees. `category` groups it in the table that `plan` prints.
struct PlannedTensor {
  std::string category;
  DType dtype;
  Shape shape;
  std::size_t offset_bytes;
};

// Where every tensor of a run will stand, computed before any memory is taken. `flasheva plan` prints it;
// Buffer then takes exactly `bytes()`.
class MemoryPlan {
 public:
  static constexpr std::size_t alignment_bytes = 64;

  struct Handle {
    int index = -1;  // -1: the tensor is absent
  };

  Handle add(std::string category, DType dtype, Shape shape);

  std::size_t bytes() const { return bytes_; }
  const std::vector<PlannedTensor>& tensors() const { return tensors_; }

 private:
  std::vector<PlannedTensor> tensors_;
  std::size_t bytes_ = 0;
};

// Host memory for every tensor of a plan, zeroed. Throws std::bad_alloc.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(const MemoryPlan& plan);

  // The planned tensor; an absent one (no data) for an absent handle.
  Tensor operator[](MemoryPlan::Handle handle) const;

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::vector<PlannedTensor> tensors_;
  std::unique_ptr<std::byte[], Free> memory_;
};

}  // namespace flasheva
