#include "src/layers/attention.h"

namespace flasheva {

namespace {

using MakeCore = std::unique_ptr<AttentionCore> (*)(const CoreArguments&);

struct Variant {
  AttentionKind kind;
  MakeCore make;
};

constexpr Variant variants[] = {
    {AttentionKind::full, make_exact_attention},
    {AttentionKind::sliding, make_exact_attention},
    {AttentionKind::eva, make_eva_attention},
};

std::unique_ptr<AttentionCore> make_core(const CoreArguments& arguments) {
  const AttentionKind kind = arguments.config.visibility(arguments.layer).kind;
  for (const Variant& variant : variants)
    if (variant.kind == kind) return variant.make(arguments);
  return nullptr;
}

}  // namespace

Attention::Attention(const CoreArguments& arguments)
    : qkv_(arguments.parameters, arguments.layer_name + ".attention.query_key_value"),
      dense_(arguments.parameters, arguments.layer_name + ".attention.dense"),
      core_(make_core(arguments)),
      heads_(arguments.config.num_attention_heads),
      head_dim_(arguments.config.head_dim()) {}

void Attention::forward(const PassContext& pass, Tensor out, Tensor x, const BlockActivations& saved,
                        const Workspace& work, Tensor cosine, Tensor sine) const {
  project_in(pass, x, saved, work, cosine, sine);
  attend(pass, saved);
  project_out(pass, out, saved);
}

void Attention::project_in(const PassContext& pass, Tensor x, const BlockActivations& saved,
                           const Workspace& work, Tensor cosine, Tensor sine) const {
  const auto [B, T] = pass.extent;
  const std::int64_t D = heads_ * head_dim_;
  const Tensor qkv = work.qkv.rows(0, B * T);
  qkv_.forward(pass.ops, qkv, x);
  core_->project(pass, saved, {qkv.reshaped({B, T, 3 * D}), cosine, sine});
}

void Attention::project_out(const PassContext& pass, Tensor out, const BlockActivations& saved) const {
  dense_.forward(pass.ops, out, shaped(saved.core_out, {pass.extent.rows(), heads_ * head_dim_}));
}

void Attention::prefill(const PassContext& pass, Tensor out, Tensor x, const BlockActivations& saved,
                        const Workspace& work, Tensor cosine, Tensor sine, const LayerCache& cache,
                        const PromptSegment& segment) const {
  const std::int64_t T = pass.extent.tokens, D = heads_ * head_dim_;
  const auto from_first_position = [&](const Tensor& table) {
    return table ? table.rows(segment.first_position, T) : Tensor{};
  };
  const Tensor qkv = work.qkv.rows(0, T);
  qkv_.forward(pass.ops, qkv, x);
  core_->prefill(pass, saved, work,
                 {qkv.reshaped({1, T, 3 * D}), from_first_position(cosine), from_first_position(sine)}, cache,
                 segment);
  dense_.forward(pass.ops, out, shaped(saved.core_out, {T, D}));
}

void Attention::decode(const PassContext& pass, Tensor out, Tensor x, const BlockActivations& saved,
                       const Workspace& work, Tensor cosine, Tensor sine, const LayerCache& cache,
                       const CachePlaces& places) const {
  const std::int64_t N = pass.extent.sequences;
  const Tensor qkv = work.qkv.rows(0, N);
  qkv_.forward(pass.ops, qkv, x);
  pass.ops.cache_append(shaped(saved.q, {N, heads_, head_dim_}), cache, qkv, cosine, sine, places);
  core_->decode(pass, saved, cache, places);
  dense_.forward(pass.ops, out, shaped(saved.core_out, {N, heads_ * head_dim_}));
}

void Attention::backward(const PassContext& pass, Tensor dx, Tensor dout, Tensor x,
                         const BlockActivations& saved, const Workspace& work, Tensor cosine,
                         Tensor sine) const {
  const auto [B, T] = pass.extent;
  const std::int64_t D = heads_ * head_dim_;
  const bool go_on = dx || core_->trained() || qkv_.trained();
  dense_.backward(pass.ops, go_on ? shaped(work.dcore_out, {B * T, D}) : Tensor{}, dout,
                  shaped(saved.core_out, {B * T, D}));
  if (!go_on) return;
  const Tensor dqkv = work.qkv.rows(0, B * T);
  core_->backward(pass, saved, work, {dqkv.reshaped({B, T, 3 * D}), cosine, sine});
  qkv_.backward(pass.ops, dx, dqkv, x);
}

}  // namespace flasheva
