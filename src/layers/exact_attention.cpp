// Kinds full and sliding: softmax over tokens alone.
#include "src/layers/attention.h"

namespace flasheva {

namespace {

class ExactAttention final : public AttentionCore {
 public:
  explicit ExactAttention(const CoreArguments& arguments)
      : heads_(arguments.config.num_attention_heads), head_dim_(arguments.config.head_dim()) {
    const LayerAttention& layer = arguments.config.attention[static_cast<std::size_t>(arguments.layer)];
    config_.visibility.kind = layer.kind;
    config_.visibility.window = layer.window;
  }

  bool trained() const override { return false; }
  std::int64_t chunks(std::int64_t) const override { return 0; }

  void forward(const PassContext& pass, const BlockActivations& saved) const override {
    const auto [B, T] = pass.extent;
    const Shape per_head{B, heads_, T, head_dim_};
    pass.ops.attention_forward(shaped(saved.core_out, {B, T, heads_ * head_dim_}),
                               shaped(saved.log_sum_exp, {B, heads_, T}), shaped(saved.q, per_head),
                               shaped(saved.k, per_head), shaped(saved.v, per_head), {}, {}, {}, config_);
  }

  void backward(const PassContext& pass, const BlockActivations& saved,
                const Workspace& work) const override {
    const auto [B, T] = pass.extent;
    const Shape per_head{B, heads_, T, head_dim_};
    const Shape out{B, T, heads_ * head_dim_};
    pass.ops.attention_backward(
        shaped(work.dq, per_head), shaped(work.dk, per_head), shaped(work.dv, per_head), {}, {}, {},
        shaped(work.dcore_out, out), shaped(saved.core_out, out), shaped(saved.log_sum_exp, {B, heads_, T}),
        shaped(saved.q, per_head), shaped(saved.k, per_head), shaped(saved.v, per_head), {}, {}, {}, config_);
  }

 private:
  AttentionConfig config_;
  std::int64_t heads_, head_dim_;
};

}  // namespace

std::unique_ptr<AttentionCore> make_exact_attention(const CoreArguments& arguments) {
  return std::make_unique<ExactAttention>(arguments);
}

}  // namespace flasheva
