#include "src/training/gemm_peak.h"

#include <algorithm>

#include "kernels/buffer.h"
#include "src/core/clock.h"

namespace flasheva {

namespace {

// Values as weights and activations have them: a GPU multiplies zeros faster than numbers.
void fill(Ops& ops, const Tensor& out, const Tensor& normal) {
  const Tensor values = shaped(normal, out.shape);
  ops.fill_normal(values, 1.0, 1, 0);
  ops.cast(out, values);
}

double measure(Ops& ops, DType compute, const GemmShape& shape, double seconds) {
  const auto [N, O, I] = shape;
  Tensor out, x, weight, normal;
  MemoryPlan plan;
  plan.add(out, "gemm", compute, {N, O});
  plan.add(x, "gemm", compute, {N, I});
  plan.add(weight, "gemm", compute, {O, I});
  plan.add(normal, "gemm", DType::f32, {std::max(N, O) * I});
  Buffer memory(plan.bytes(), ops);
  memory.bind(plan);
  fill(ops, x, normal);
  fill(ops, weight, normal);
  ops.linear_forward(out, x, weight, {});  // the first call plans
  ops.synchronize();
  const int calls = ops.device() == Device::cpu ? 1 : 10;  // of a GPU, to hide what starting one takes
  const double flops = calls * 2.0 * static_cast<double>(N * O) * static_cast<double>(I);
  double best = 0;
  const double end = seconds_now() + seconds;
  do {
    const double start = seconds_now();
    for (int i = 0; i < calls; ++i) ops.linear_forward(out, x, weight, {});
    ops.synchronize();
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
