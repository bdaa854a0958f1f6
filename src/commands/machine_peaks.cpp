#include "src/commands/machine_peaks.h"

#include <algorithm>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/cpu/simd.h"
#include "src/core/clock.h"

namespace flasheva {

namespace {

constexpr std::int64_t elements = 1 << 26;  // float32: 256 MiB

// Of one wait for the device: several on a GPU, to hide what the wait takes.
std::size_t calls_of(const Ops& ops) { return ops.device() == Device::cpu ? 1 : 10; }

// The best of several runs; `bytes` of one call, of which work() makes calls_of(ops).
template <class Work>
double bytes_per_second(Ops& ops, double bytes, const Work& work) {
  double best = 0;
  for (int i = 0; i < 6; ++i) {
    const double start = seconds_now();
    work();
    ops.synchronize();
    best = std::max(best, static_cast<double>(calls_of(ops)) * bytes / (seconds_now() - start));
  }
  return best;
}

// Reads every element once, all threads their own share.
void sum_of(const float* x) {
  constexpr int lanes = simd::lanes<float>, streams = 8;
  volatile float kept = 0;
#pragma omp parallel
  {
    simd::Floats sums[streams] = {};
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < elements; i += streams * lanes)
      for (int s = 0; s < streams; ++s) sums[s] += simd::load(x + i + s * lanes);
    for (const simd::Floats& sum : sums) kept = kept + simd::sum(sum);
  }
}

}  // namespace

double measure_copy_peak(Ops& ops) {
  Tensor out, in;
  MemoryPlan plan;
  for (Tensor* tensor : {&out, &in}) plan.add(*tensor, "copy", DType::f32, {elements});
  Buffer memory(plan.bytes(), ops);
  memory.bind(plan);
  ops.synchronize();
  return bytes_per_second(ops, static_cast<double>(in.bytes() + out.bytes()), [&] {
    for (std::size_t i = 0; i < calls_of(ops); ++i) ops.cast(out, in);
  });
}

double measure_read_peak(Ops& ops) {
  Tensor in;
  MemoryPlan plan;
  plan.add(in, "read", DType::f32, {elements});
  Buffer memory(plan.bytes(), ops);
  memory.bind(plan);
  const std::vector<Tensor> inputs(calls_of(ops), in);
  std::vector<double> sums(inputs.size());
  return bytes_per_second(ops, static_cast<double>(in.bytes()), [&] {
    if (ops.device() == Device::cpu)
      sum_of(in.as<float>());
    else
      ops.sums_of_squares(sums, inputs);  // which waits once
  });
}

}  // namespace flasheva
