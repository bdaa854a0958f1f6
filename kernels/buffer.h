// Owning memory, taken once and carved into tensors: nothing is allocated while a step runs.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "kernels/device_memory.h"
#include "kernels/tensor.h"

namespace flasheva {

class Ops;

// Where every tensor of a run will stand, computed before any memory is taken: `flasheva plan` prints it, and
// Buffer::bind then points the tensors at their places.
class MemoryPlan {
 public:
  static constexpr std::size_t alignment_bytes = 64;

  struct Category {
    std::string name;
    std::size_t bytes;
  };

  // Foresees `tensor` with this type and shape. The tensor must stay where it is until bound. `category`
  // groups it in the table that `plan` prints. Throws OutOfMemory where no machine has addresses for so much.
  void add(Tensor& tensor, const std::string& category, DType dtype, Shape shape);

  std::size_t bytes() const { return bytes_; }
  const std::vector<Category>& categories() const { return categories_; }

 private:
  friend class Buffer;
  struct Place {
    Tensor* tensor;
    DType dtype;
    Shape shape;
    std::size_t offset_bytes;
  };
  std::vector<Place> places_;
  std::vector<Category> categories_;
  std::size_t bytes_ = 0;
};

// Memory of one device, taken at once.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes);   // of the host; throws OutOfMemory
  Buffer(std::size_t bytes, Ops& ops);  // of the device of `ops`, which must outlive it
  // Of the host, such as Ops::start_copy wants it; throws OutOfMemory.
  static Buffer on_host(std::size_t bytes, Ops& ops);

  // Zeroes the memory and points every tensor of the plan into it; tensors bound before lose their content.
  void bind(const MemoryPlan& plan);

 private:
  Buffer(std::size_t bytes, DeviceMemory memory) : memory_(std::move(memory)), bytes_(bytes) {}

  DeviceMemory memory_;
  std::size_t bytes_;
  Ops* ops_ = nullptr;  // null: of the host
};

// A view of the first elements of `planned` under a shape that is at most as large: micro batches and
// sequences may be smaller than what was planned for. Absent stays absent.
Tensor shaped(const Tensor& planned, Shape shape);

}  // namespace flasheva
