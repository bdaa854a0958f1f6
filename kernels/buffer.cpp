#include "kernels/buffer.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels/check.h"

namespace flasheva {

void MemoryPlan::add(Tensor& tensor, const std::string& category, DType dtype, Shape shape) {
  places_.push_back({&tensor, dtype, shape, bytes_});
  const std::size_t bytes = static_cast<std::size_t>(shape.size()) * size_in_bytes(dtype);
  const std::size_t padded = (bytes + alignment_bytes - 1) / alignment_bytes * alignment_bytes;
  bytes_ += padded;
  const auto same = [&](const Category& known) { return known.name == category; };
  const auto known = std::find_if(categories_.begin(), categories_.end(), same);
  if (known == categories_.end())
    categories_.push_back({category, padded});
  else
    known->bytes += padded;
}

void Buffer::Free::operator()(std::byte* memory) const { std::free(memory); }

Buffer::Buffer(std::size_t bytes) : bytes_(std::max(bytes, MemoryPlan::alignment_bytes)) {
  memory_.reset(static_cast<std::byte*>(std::aligned_alloc(MemoryPlan::alignment_bytes, bytes_)));
  if (memory_ == nullptr) throw std::bad_alloc();
}

void Buffer::bind(const MemoryPlan& plan) {
  FLASHEVA_CHECK(plan.bytes() <= bytes_);
  std::memset(memory_.get(), 0, plan.bytes());
  for (const MemoryPlan::Place& place : plan.places_)
    *place.tensor = Tensor{memory_.get() + place.offset_bytes, place.dtype, place.shape, Device::cpu};
}

Tensor shaped(const Tensor& planned, Shape shape) {
  if (!planned) return planned;
  FLASHEVA_CHECK(shape.size() <= planned.size());
  return Tensor{planned.data, planned.dtype, shape, planned.device};
}

}  // namespace flasheva
