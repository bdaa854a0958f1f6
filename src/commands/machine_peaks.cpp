#include "src/commands/machine_peaks.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>

#include "kernels/buffer.h"

namespace flasheva {

namespace {

constexpr std::int64_t elements = 1 << 26;  // float32: 256 MiB

// The best of several runs.
template <class Work>
double bytes_per_second(double bytes, const Work& work) {
  double best = 0;
  for (int i = 0; i < 6; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    best = std::max(best,
                    bytes / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

double measure_copy_peak(Ops& ops) {
  Tensor out, in;
  MemoryPlan plan;
  for (Tensor* tensor : {&out, &in}) plan.add(*tensor, "copy", DType::f32, {elements});
  Buffer memory(plan.bytes());
  memory.bind(plan);
  return bytes_per_second(static_cast<double>(in.bytes() + out.bytes()), [&] { ops.cast(out, in); });
}

double measure_read_peak(Ops& ops) {
  Tensor in;
  MemoryPlan plan;
  plan.add(in, "read", DType::f32, {elements});
  Buffer memory(plan.bytes());
  memory.bind(plan);
  return bytes_per_second(static_cast<double>(in.bytes()),
                          [&] { static_cast<void>(ops.sum_of_squares(in)); });
}

std::size_t peak_memory_bytes() {
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
}

}  // namespace flasheva
