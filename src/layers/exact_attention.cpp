// Kinds full and sliding: softmax over tokens alone.
#include "src/layers/attention.h"

namespace flasheva {

namespace {

class ExactAttention final : public AttentionCore {
 public:
  explicit ExactAttention(const CoreArguments& arguments)
      : heads_(arguments.config.num_attention_heads), head_dim_(arguments.config.head_dim()) {
    config_.visibility = arguments.config.visibility(arguments.layer);
  }

  bool trained() const override { return false; }
  std::int64_t chunks(std::int64_t) const override { return 0; }

  void project(const PassContext& pass, const BlockActivations& saved,
               const FusedProjection& x) const override {
    const Shape per_head = shape_of_heads(pass.extent);
    pass.ops.qkv_rotary_forward(shaped(saved.q, per_head), shaped(saved.k, per_head),
                                shaped(saved.v, per_head), x.qkv, x.cosine, x.sine);
  }

  void forward(const PassContext& pass, const BlockActivations& saved) const override {
    const auto [B, T] = pass.extent;
    const Shape per_head = shape_of_heads(pass.extent);
    pass.ops.attention_forward(shaped(saved.core_out, {B, T, heads_ * head_dim_}),
                               shaped(saved.log_sum_exp, {B, heads_, T}), shaped(saved.q, per_head),
                               shaped(saved.k, per_head), shaped(saved.v, per_head), {}, {}, {}, config_);
  }

  void backward(const PassContext& pass, const BlockActivations& saved, const Workspace& work,
                const FusedProjection& dx) const override {
    const auto [B, T] = pass.extent;
    const Shape per_head = shape_of_heads(pass.extent);
    const Shape out{B, T, heads_ * head_dim_};
    const Tensor dq = shaped(work.dq, per_head), dk = shaped(work.dk, per_head),
                 dv = shaped(work.dv, per_head);
    pass.ops.attention_backward(dq, dk, dv, {}, {}, {}, shaped(work.dcore_out, out),
                                shaped(saved.core_out, out), shaped(saved.log_sum_exp, {B, heads_, T}),
                                shaped(saved.q, per_head), shaped(saved.k, per_head),
                                shaped(saved.v, per_head), {}, {}, {}, config_);
    pass.ops.qkv_rotary_backward(dx.qkv, dq, dk, dv, dx.cosine, dx.sine);
  }

  void plan_cache(MemoryPlan& plan, LayerCache& cache, Extent largest, DType compute) const override {
    plan_layer_cache(plan, cache, config_.visibility, heads_, head_dim_, largest, compute);
  }

  void prefill(const PassContext& pass, const BlockActivations& saved, const Workspace& work,
               const FusedProjection& x, const LayerCache& cache,
               const PromptSegment& segment) const override {
    const std::int64_t T = pass.extent.tokens;
    const Shape per_head = shape_of_heads(pass.extent);
    const SegmentTensors at{shaped(saved.core_out, {1, T, heads_ * head_dim_}),
                            shaped(saved.log_sum_exp, {1, heads_, T}),
                            shaped(saved.q, per_head),
                            shaped(saved.k, per_head),
                            shaped(saved.v, per_head),
                            {},
                            {},
                            {}};
    pass.ops.qkv_rotary_forward(at.q, at.k, at.v, x.qkv, x.cosine, x.sine);
    attend_segment(pass, at, work, cache, config_, segment);
  }

  void decode(const PassContext& pass, const BlockActivations& saved, const LayerCache& cache,
              const CachePlaces& places) const override {
    const std::int64_t N = pass.extent.sequences;
    pass.ops.attention_cached(shaped(saved.core_out, {N, heads_ * head_dim_}),
                              shaped(saved.q, {N, heads_, head_dim_}), cache, {}, config_, places);
  }

 private:
  Shape shape_of_heads(const Extent& extent) const {
    return {extent.sequences, heads_, extent.tokens, head_dim_};
  }

  AttentionConfig config_;
  std::int64_t heads_, head_dim_;
};

}  // namespace

std::unique_ptr<AttentionCore> make_exact_attention(const CoreArguments& arguments) {
  return std::make_unique<ExactAttention>(arguments);
}

}  // namespace flasheva
