#include "src/training/gemm_peak.h"

#include <algorithm>
#include <chrono>

#include "kernels/buffer.h"

namespace flasheva {

namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double measure(Ops& ops, DType compute, const GemmShape& shape, double seconds) {
  Tensor out, x, weight;
  MemoryPlan plan;
  plan.add(out, "gemm", compute, {shape.rows, shape.columns});
  plan.add(x, "gemm", compute, {shape.rows, shape.inner});
  plan.add(weight, "gemm", compute, {shape.columns, shape.inner});
  Buffer memory(plan.bytes());
  memory.bind(plan);
  ops.linear_forward(out, x, weight, {});  // the first call plans
  const double flops =
      2.0 * static_cast<double>(shape.rows * shape.columns) * static_cast<double>(shape.inner);
  double best = 0;
  const double end = seconds_now() + seconds;
  do {
    const double start = seconds_now();
    ops.linear_forward(out, x, weight, {});
    best = std::max(best, flops / (seconds_now() - start));
  } while (seconds_now() < end);
  return best;
}

}  // namespace

double measure_gemm_peak(Ops& ops, DType compute, const std::vector<GemmShape>& shapes, double seconds) {
  double peak = 0;
  for (const GemmShape& shape : shapes) peak = std::max(peak, measure(ops, compute, shape, seconds));
  return peak;
}

}  // namespace flasheva
