#include "kernels/buffer.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace flasheva {

namespace {
std::size_t round_up(std::size_t bytes) {
  return (bytes + MemoryPlan::alignment_bytes - 1) / MemoryPlan::alignment_bytes * MemoryPlan::alignment_bytes;
}
}  // namespace

MemoryPlan::Handle MemoryPlan::add(std::string category, DType dtype, Shape shape) {
  tensors_.push_back({std::move(category), dtype, shape, bytes_});
  bytes_ += round_up(static_cast<std::size_t>(shape.size()) * size_in_bytes(dtype));
  return {static_cast<int>(tensors_.size()) - 1};
}

void Buffer::Free::operator()(std::byte* memory) const { std::free(memory); }

Buffer::Buffer(const MemoryPlan& plan) : tensors_(plan.tensors()) {
  if (plan.bytes() == 0) return;
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(MemoryPlan::alignment_bytes, plan.bytes()));
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory, 0, plan.bytes());
  memory_.reset(memory);
}

Tensor Buffer::operator[](MemoryPlan::Handle handle) const {
  if (handle.index < 0) return {};
  const PlannedTensor& planned = tensors_[static_cast<std::size_t>(handle.index)];
  return Tensor{memory_.get() + planned.offset_bytes, planned.dtype, planned.shape, Device::cpu};
}

}  // namespace flasheva
