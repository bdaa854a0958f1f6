#include "kernels/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "kernels/check.h"
#include "kernels/ops.h"

namespace flasheva {

void MemoryPlan::add(Tensor& tensor, const std::string& category, DType dtype, Shape shape) {
  places_.push_back({&tensor, dtype, shape, bytes_});
  constexpr std::size_t most = std::size_t{1} << 62;
  std::size_t bytes = size_in_bytes(dtype);
  bool too_many = false;
  for (int i = 0; i < shape.rank(); ++i)
    too_many |= __builtin_mul_overflow(bytes, static_cast<std::size_t>(shape[i]), &bytes);
  if (too_many || bytes > most || bytes_ + bytes > most)
    throw OutOfMemory("memory: more bytes asked for than 64 bits can count");
  const std::size_t padded = (bytes + alignment_bytes - 1) / alignment_bytes * alignment_bytes;
  bytes_ += padded;
  const auto same = [&](const Category& known) { return known.name == category; };
  const auto known = std::find_if(categories_.begin(), categories_.end(), same);
  if (known == categories_.end())
    categories_.push_back({category, padded});
  else
    known->bytes += padded;
}

DeviceMemory allocate_host_memory(std::size_t bytes) {
  // Pages of 2 MiB where memory is that large: matrices and caches that do not fit a processor's table of
  // 4 KiB pages wait for addresses otherwise. Linux gives them where it may ("madvise" or "always" in
  // /sys/kernel/mm/transparent_hugepage/enabled), and small ones elsewhere.
  constexpr std::size_t huge_page = 2u << 20;
  const std::size_t alignment = bytes < huge_page ? MemoryPlan::alignment_bytes : huge_page;
  const std::size_t padded = std::max<std::size_t>(1, (bytes + alignment - 1) / alignment) * alignment;
  DeviceMemory memory(static_cast<std::byte*>(std::aligned_alloc(alignment, padded)),
                      [](std::byte* taken) { std::free(taken); });
  if (memory == nullptr)
    throw OutOfMemory("memory: " + std::to_string(bytes >> 20) + " MiB asked for, not there");
  if (alignment == huge_page)
    madvise(memory.get(), padded, MADV_HUGEPAGE);  // advice: nothing fails without it
  return memory;
}

Buffer::Buffer(std::size_t bytes) : Buffer(bytes, allocate_host_memory(bytes)) {}

Buffer::Buffer(std::size_t bytes, Ops& ops) : memory_(ops.allocate(bytes)), bytes_(bytes), ops_(&ops) {}

Buffer Buffer::on_host(std::size_t bytes, Ops& ops) { return Buffer(bytes, ops.allocate_on_host(bytes)); }

void Buffer::bind(const MemoryPlan& plan) {
  FLASHEVA_CHECK(plan.bytes() <= bytes_);
  const Device device = ops_ == nullptr ? Device::cpu : ops_->device();
  if (ops_ == nullptr)
    std::memset(memory_.get(), 0, plan.bytes());
  else
    ops_->zero({memory_.get(), DType::u8, {static_cast<std::int64_t>(plan.bytes())}, device});
  for (const MemoryPlan::Place& place : plan.places_)
    *place.tensor = Tensor{memory_.get() + place.offset_bytes, place.dtype, place.shape, device};
}

Tensor shaped(const Tensor& planned, Shape shape) {
  if (!planned) return planned;
  FLASHEVA_CHECK(shape.size() <= planned.size());
  return Tensor{planned.data, planned.dtype, shape, planned.device};
}

}  // namespace flasheva
