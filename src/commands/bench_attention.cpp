#include "src/commands/bench_attention.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "kernels/buffer.h"
#include "src/commands/figures.h"
#include "src/commands/machine_peaks.h"
#include "src/commands/operation_times.h"
#include "src/config/config.h"
#include "src/core/clock.h"
#include "src/core/error.h"
#include "src/training/flops.h"
#include "src/training/gemm_peak.h"

namespace flasheva {

namespace {

// Everything that one core's forward and backward read and write: adapter linear, proposal qk. Summaries come
// with the split of the fused projection, without rotary dimensions.
struct Core {
  Tensor qkv, dqkv;  // (B, T, 3D): with chunks
  Tensor q, k, v, kappa, beta, out, log_sum_exp;
  Tensor dq, dk, dv, dkappa, dbeta, dout;
  EvaParameters weights, gradients;
  AttentionConfig attention;
  ChunkSummaryConfig summary;
  bool has_chunks = false;

  void plan(MemoryPlan& plan, const BenchAttentionOptions& options, DType compute);
  void fill(Ops& ops, Tensor noise);
  void forward(Ops& ops) const;
  void backward(Ops& ops) const;
};

void Core::plan(MemoryPlan& plan, const BenchAttentionOptions& options, DType compute) {
  attention.visibility = {*parse_name<AttentionKind>(options.kind),
                          *parse_name<WindowKind>(options.window_kind), ChunkVisibility::outside_window,
                          options.window, options.chunk};
  summary.chunk = options.chunk;
  const std::int64_t B = options.batch, H = options.heads, T = options.tokens, d = options.head_dim;
  const std::int64_t C = attention.visibility.chunks(T);
  has_chunks = C > 0;
  for (Tensor* tensor : {&q, &k, &v, &dq, &dk, &dv}) plan.add(*tensor, "attention", compute, {B, H, T, d});
  for (Tensor* tensor : {&out, &dout}) plan.add(*tensor, "attention", compute, {B, T, H * d});
  plan.add(log_sum_exp, "attention", DType::f32, {B, H, T});
  if (!has_chunks) return;
  for (Tensor* tensor : {&qkv, &dqkv}) plan.add(*tensor, "attention", compute, {B, T, 3 * H * d});
  for (Tensor* tensor : {&kappa, &beta, &dkappa, &dbeta})
    plan.add(*tensor, "attention", compute, {B, H, C, d});
  for (Tensor* tensor : {&weights.key_weight, &weights.query_weight})
    plan.add(*tensor, "attention", compute, {d, d});
  for (Tensor* tensor : {&weights.key_bias, &weights.query_bias})
    plan.add(*tensor, "attention", compute, {d});
  for (Tensor* tensor : {&gradients.key_weight, &gradients.query_weight})
    plan.add(*tensor, "attention", DType::f32, {d, d});
  for (Tensor* tensor : {&gradients.key_bias, &gradients.query_bias})
    plan.add(*tensor, "attention", DType::f32, {d});
}

void Core::fill(Ops& ops, Tensor noise) {
  std::uint32_t stream = 0;
  for (Tensor tensor : {q, k, v, dout, weights.key_weight, weights.query_weight}) {
    if (!tensor) continue;
    const Tensor values = shaped(noise, tensor.shape);
    ops.fill_normal(values,
                    tensor.shape.rank() == 2 ? 1 / std::sqrt(static_cast<double>(tensor.dim(1))) : 1.0, 1,
                    stream++);
    ops.cast(tensor, values);
  }
  if (has_chunks) ops.qkv_rotary_backward(qkv, q, k, v, {}, {});  // merges them
}

void Core::forward(Ops& ops) const {
  if (has_chunks) ops.qkv_summary_forward(q, k, v, kappa, beta, qkv, {}, {}, weights, summary);
  ops.attention_forward(out, log_sum_exp, q, k, v, kappa, beta, {}, attention);
}

void Core::backward(Ops& ops) const {
  ops.attention_backward(dq, dk, dv, dkappa, dbeta, {}, dout, out, log_sum_exp, q, k, v, kappa, beta, {},
                         attention);
  if (has_chunks)
    ops.qkv_summary_backward(dqkv, gradients, dq, dk, dv, dkappa, dbeta, q, k, v, {}, {}, weights, summary);
}

double milliseconds_of(Ops& ops, int calls, const std::function<void()>& work) {
  const double start = seconds_now();
  for (int i = 0; i < calls; ++i) work();
  ops.synchronize();
  return 1000 * (seconds_now() - start) / calls;
}

// Of samples of 10 ms or one call, once the clocks have risen.
double median_milliseconds(Ops& ops, int samples, const std::function<void()>& work) {
  constexpr double warm_up_ms = 300, sample_ms = 10;
  work();
  ops.synchronize();
  double one_ms = 0;
  for (double warm_ms = 0; warm_ms < warm_up_ms; warm_ms += one_ms) one_ms = milliseconds_of(ops, 1, work);
  const int calls = std::clamp(static_cast<int>(sample_ms / one_ms), 1, 100);
  std::vector<double> times;
  for (int i = 0; i < samples; ++i) times.push_back(milliseconds_of(ops, calls, work));
  return median(times);
}

nlohmann::ordered_json profile_of(const Core& core, Ops& ops, int repeats) {
  TimedOps timed(ops);
  for (int i = 0; i < repeats; ++i) {
    core.forward(timed);
    core.backward(timed);
  }
  return operations_of(timed, repeats);
}

}  // namespace

void bench_attention(const BenchAttentionOptions& options) {
  if (options.kind == "eva" && options.window % options.chunk != 0)
    fail(ExitCode::usage, "--window {} is not a multiple of --chunk {}", options.window, options.chunk);
  const DType compute = compute_type(*parse_name<Precision>(options.precision));
  const auto ops = options.device.make_ops();

  Core core;
  Tensor noise;
  MemoryPlan plan;
  core.plan(plan, options, compute);
  plan.add(noise, "attention", DType::f32,
           {std::max(options.batch * options.heads * options.tokens, options.head_dim) * options.head_dim});
  Buffer memory(plan.bytes(), *ops);
  memory.bind(plan);
  core.fill(*ops, noise);

  const double forward = median_milliseconds(*ops, options.repeats, [&] { core.forward(*ops); });
  const double backward = median_milliseconds(*ops, options.repeats, [&] { core.backward(*ops); });
  const double flops = 3.5 * 4 * static_cast<double>(options.batch * options.heads * options.head_dim) *
                       static_cast<double>(visible_pairs(core.attention.visibility, options.tokens));
  const double speed = flops / ((forward + backward) * 1e-3);
  const double peak = measure_gemm_peak(*ops, compute, {{2048, 2048, 2048}}, 0.3);
  nlohmann::ordered_json figures = {
      {"kind", options.kind},      {"precision", options.precision},     {"batch", options.batch},
      {"tokens", options.tokens},  {"milliseconds_forward", forward},    {"milliseconds_backward", backward},
      {"flops_per_second", speed}, {"gemm_peak_flops_per_second", peak}, {"share_of_peak", speed / peak}};
  if (options.operations) {
    figures["copy_peak_bytes_per_second"] = measure_copy_peak(*ops);
    figures["operations"] = profile_of(core, *ops, options.repeats);
  }
  print_figures(figures, options.json);
  if (options.operations) print_operations(figures["operations"], (forward + backward) * 1e-3);
}

}  // namespace flasheva
