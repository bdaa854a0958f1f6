#include "kernels/cpu/scratch.h"

#include "kernels/cpu/loops.h"

namespace flasheva {

std::byte* CpuScratch::Own::take(std::size_t wanted) {
  if (wanted > bytes || memory == nullptr) {
    *this = {};  // before, as both may be too much
    memory = allocate_host_memory(wanted);
    bytes = wanted;
  }
  return memory.get();
}

void CpuScratch::lend(const ScratchMemory& memory) {
  const Tensor &shared = memory.shared, &rows = memory.of_threads;
  FLASHEVA_CHECK(!shared || matches(shared, DType::u8, shared.shape));
  FLASHEVA_CHECK(!rows || (rows.shape.rank() == 2 && matches(rows, DType::u8, rows.shape)));
  lent_ = memory;
  shared_ = {};
  rows_ = {};
}

std::byte* CpuScratch::take_shared(std::int64_t bytes) {
  const auto wanted = static_cast<std::size_t>(bytes);
  if (lent_.shared && wanted <= lent_.shared.bytes()) return static_cast<std::byte*>(lent_.shared.data);
  return shared_.take(wanted);
}

ThreadMemory CpuScratch::take_rows(std::int64_t bytes) {
  const Shape wanted = thread_rows(bytes);
  const Tensor& lent = lent_.of_threads;
  if (lent && wanted[0] <= lent.dim(0) && wanted[1] <= lent.dim(1))
    return {static_cast<std::byte*>(lent.data), lent.dim(1)};
  return {rows_.take(static_cast<std::size_t>(wanted.size())), wanted[1]};
}

}  // namespace flasheva
