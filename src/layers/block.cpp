#include "src/layers/block.h"

#include <utility>

namespace flasheva {

Block::Block(const CoreArguments& arguments)
    : config_(arguments.config),
      norm1_(arguments.parameters, arguments.layer_name + ".input_layernorm",
             arguments.config.layer_norm_eps),
      norm2_(arguments.parameters, arguments.layer_name + ".post_attention_layernorm",
             arguments.config.layer_norm_eps),
      attention_(arguments),
      mlp_(arguments.parameters, arguments.layer_name) {}

void Block::plan(MemoryPlan& plan, BlockActivations& saved, Extent largest, DType compute,
                 const ActivationGroups& groups) const {
  const auto [B, T] = largest;
  const std::int64_t N = B * T, D = config_.hidden_size, I = config_.intermediate_size;
  const std::int64_t H = config_.num_attention_heads, d = config_.head_dim(), C = chunks(T);
  const DType acc = accumulation_type(compute);
  const auto add = [&](Tensor& tensor, DType dtype, Shape shape) {
    plan.add(tensor, "activations", dtype, shape);
  };

  saved = BlockActivations{};
  if (groups.input) add(saved.input, compute, {N, D});
  if (groups.results) {
    for (Tensor* statistic : {&saved.norm1_mean, &saved.norm1_rstd}) add(*statistic, acc, {N});
    add(saved.core_out, compute, {N, D});
    add(saved.log_sum_exp, acc, {B, H, T});
    add(saved.mlp_pre, compute, {N, I});
    if (!config_.use_parallel_residual) {
      add(saved.middle, compute, {N, D});
      for (Tensor* statistic : {&saved.norm2_mean, &saved.norm2_rstd}) add(*statistic, acc, {N});
    }
  }
  if (groups.operands) {
    for (Tensor* tensor : {&saved.q, &saved.k, &saved.v}) add(*tensor, compute, {B, H, T, d});
    if (C > 0)
      for (Tensor* tensor : {&saved.kappa, &saved.beta}) add(*tensor, compute, {B, H, C, d});
  }
  if (groups.factors) {
    if (attention_.needs_input()) add(saved.norm1_out, compute, {N, D});
    if (mlp_.needs_input()) add(saved.norm2_out, compute, {N, D});
    if (mlp_.needs_hidden()) add(saved.mlp_hidden, compute, {N, I});
  }
}

void plan_workspace(MemoryPlan& plan, Workspace& work, const ModelConfig& config, Extent largest,
                    std::int64_t chunks, DType compute, bool training) {
  const auto [B, T] = largest;
  const std::int64_t N = B * T, D = config.hidden_size, H = config.num_attention_heads, d = config.head_dim();
  const auto add = [&](Tensor& tensor, Shape shape) { plan.add(tensor, "workspace", compute, shape); };

  work = Workspace{};
  for (Tensor* tensor : {&work.norm1_out, &work.norm2_out, &work.branch1, &work.branch2})
    add(*tensor, {N, D});
  add(work.qkv, {N, 3 * D});
  add(work.mlp_hidden, {N, config.intermediate_size});
  if (!training) return;
  add(work.dcore_out, {N, D});
  for (Tensor* tensor : {&work.dq, &work.dk, &work.dv}) add(*tensor, {B, H, T, d});
  if (chunks > 0)
    for (Tensor* tensor : {&work.dkappa, &work.dbeta}) add(*tensor, {B, H, chunks, d});
}

namespace {
// The saved tensor where it is kept, else the workspace's.
Tensor either(const Tensor& saved, const Tensor& shared, std::int64_t rows) {
  return (saved ? saved : shared).rows(0, rows);
}
}  // namespace

void Block::first_norms(const PassContext& pass, const BlockActivations& saved, const Workspace& work) const {
  const std::int64_t N = pass.extent.rows();
  const Norm norm1 = norm1_.output(either(saved.norm1_out, work.norm1_out, N));
  const Norm norm2 = norm2_.output(either(saved.norm2_out, work.norm2_out, N));
  pass.ops.layernorm_forward(norm1, config_.use_parallel_residual ? norm2 : Norm{},
                             saved.norm1_mean.rows(0, N), saved.norm1_rstd.rows(0, N), saved.input.rows(0, N),
                             config_.layer_norm_eps);
}

void Block::second_norm(const PassContext& pass, const BlockActivations& saved, const Workspace& work) const {
  const std::int64_t N = pass.extent.rows();
  norm2_.forward(pass.ops, either(saved.norm2_out, work.norm2_out, N), saved.norm2_mean.rows(0, N),
                 saved.norm2_rstd.rows(0, N), saved.middle.rows(0, N));
}

// attend(out (N, D), x (N, D)): the attention of the pass at hand.
template <class Attend>
void Block::run(const PassContext& pass, Tensor out, const BlockActivations& saved, const Workspace& work,
                const Attend& attend) const {
  const std::int64_t N = pass.extent.rows();
  const Tensor x = saved.input.rows(0, N);
  const Tensor normed1 = either(saved.norm1_out, work.norm1_out, N);
  const Tensor normed2 = either(saved.norm2_out, work.norm2_out, N);
  const Tensor from_attention = work.branch1.rows(0, N), from_mlp = work.branch2.rows(0, N);

  first_norms(pass, saved, work);
  attend(from_attention, normed1);
  if (config_.use_parallel_residual) {
    mlp_.forward(pass, from_mlp, normed2, saved, work);
    pass.ops.residual(out, x, from_attention, from_mlp);
    return;
  }
  const Tensor middle = saved.middle.rows(0, N);
  pass.ops.residual(middle, x, from_attention, {});
  second_norm(pass, saved, work);
  mlp_.forward(pass, from_mlp, normed2, saved, work);
  pass.ops.residual(out, middle, from_mlp, {});
}

void Block::forward(const PassContext& pass, Tensor out, const BlockActivations& saved, const Workspace& work,
                    Tensor cosine, Tensor sine) const {
  run(pass, out, saved, work,
      [&](Tensor attended, Tensor x) { attention_.forward(pass, attended, x, saved, work, cosine, sine); });
}

void Block::prefill(const PassContext& pass, Tensor out, const BlockActivations& saved, const Workspace& work,
                    Tensor cosine, Tensor sine, const LayerCache& cache, const PromptSegment& segment) const {
  run(pass, out, saved, work, [&](Tensor attended, Tensor x) {
    attention_.prefill(pass, attended, x, saved, work, cosine, sine, cache, segment);
  });
}

void Block::decode(const PassContext& pass, Tensor out, const BlockActivations& saved, const Workspace& work,
                   Tensor cosine, Tensor sine, const LayerCache& cache, const CachePlaces& places) const {
  run(pass, out, saved, work, [&](Tensor attended, Tensor x) {
    attention_.decode(pass, attended, x, saved, work, cosine, sine, cache, places);
  });
}

// The calls of run() with the same inputs, as far as backward() reads what they give.
void Block::rebuild(const PassContext& pass, const BlockActivations& saved, const Workspace& work,
                    Tensor cosine, Tensor sine, Recompute recompute) const {
  if (recompute == Recompute::none) return;
  const bool results = recompute == Recompute::block;
  const std::int64_t N = pass.extent.rows();
  first_norms(pass, saved, work);
  attention_.project_in(pass, either(saved.norm1_out, work.norm1_out, N), saved, work, cosine, sine);
  if (results) attention_.attend(pass, saved);
  if (!config_.use_parallel_residual) {
    const Tensor from_attention = work.branch1.rows(0, N);
    if (results) {
      attention_.project_out(pass, from_attention, saved);
      pass.ops.residual(saved.middle.rows(0, N), saved.input.rows(0, N), from_attention, {});
    }
    second_norm(pass, saved, work);
  }
  if (results) mlp_.project_up(pass, either(saved.norm2_out, work.norm2_out, N), saved);
  if (mlp_.needs_hidden()) mlp_.activate(pass, saved, work);
}

void Block::backward(const PassContext& pass, Tensor dx, bool input_gradient, const BlockActivations& saved,
                     const Workspace& work, Tensor cosine, Tensor sine) const {
  if (config_.use_parallel_residual)
    backward_parallel(pass, dx, input_gradient, saved, work, cosine, sine);
  else
    backward_sequential(pass, dx, input_gradient, saved, work, cosine, sine);
}

// Both branches read the same dx before either norm adds to it.
void Block::backward_parallel(const PassContext& pass, Tensor dx, bool input_gradient,
                              const BlockActivations& saved, const Workspace& work, Tensor cosine,
                              Tensor sine) const {
  const std::int64_t N = pass.extent.rows();
  const Tensor x = saved.input.rows(0, N), into = input_gradient ? dx : Tensor{};
  const bool norm1_needed = input_gradient || norm1_.trained(),
             norm2_needed = input_gradient || norm2_.trained();
  const Tensor dnormed1 = norm1_needed ? work.branch1.rows(0, N) : Tensor{};
  const Tensor dnormed2 = norm2_needed ? work.branch2.rows(0, N) : Tensor{};

  if (norm2_needed || mlp_.trained())
    mlp_.backward(pass, dnormed2, dx, either(saved.norm2_out, work.norm2_out, N), saved, work);
  if (norm1_needed || attention_.trained())
    attention_.backward(pass, dnormed1, dx, either(saved.norm1_out, work.norm1_out, N), saved, work, cosine,
                        sine);
  NormGradients norm = norm1_.gradients(dnormed1), second = norm2_.gradients(dnormed2);
  if (!norm1_needed) std::swap(norm, second);
  if (norm1_needed || norm2_needed)
    pass.ops.layernorm_backward(into, norm, second, x, saved.norm1_mean.rows(0, N),
                                saved.norm1_rstd.rows(0, N));
}

// First through the MLP down to y, then through attention down to x.
void Block::backward_sequential(const PassContext& pass, Tensor dx, bool input_gradient,
                                const BlockActivations& saved, const Workspace& work, Tensor cosine,
                                Tensor sine) const {
  const std::int64_t N = pass.extent.rows();
  const bool norm1_needed = input_gradient || norm1_.trained();
  const bool attention_needed = norm1_needed || attention_.trained();
  const Tensor dnormed1 = norm1_needed ? work.branch1.rows(0, N) : Tensor{};
  const Tensor dnormed2 = attention_needed || norm2_.trained() ? work.branch2.rows(0, N) : Tensor{};

  if (dnormed2 || mlp_.trained())
    mlp_.backward(pass, dnormed2, dx, either(saved.norm2_out, work.norm2_out, N), saved, work);
  if (dnormed2)
    norm2_.backward(pass.ops, attention_needed ? dx : Tensor{}, dnormed2, saved.middle.rows(0, N),
                    saved.norm2_mean.rows(0, N), saved.norm2_rstd.rows(0, N));
  if (attention_needed)
    attention_.backward(pass, dnormed1, dx, either(saved.norm1_out, work.norm1_out, N), saved, work, cosine,
                        sine);
  if (norm1_needed)
    norm1_.backward(pass.ops, input_gradient ? dx : Tensor{}, dnormed1, saved.input.rows(0, N),
                    saved.norm1_mean.rows(0, N), saved.norm1_rstd.rows(0, N));
}

}  // namespace flasheva
