// Kind eva: softmax over the tokens of the window and one compressed key a chunk.
#include "src/layers/attention.h"

namespace flasheva {

namespace {

class EvaAttention final : public AttentionCore {
 public:
  explicit EvaAttention(const CoreArguments& arguments)
      : heads_(arguments.config.num_attention_heads), head_dim_(arguments.config.head_dim()) {
    const EvaConfig& eva = arguments.config.eva;
    attention_.visibility = arguments.config.visibility(arguments.layer);
    attention_.chunk_bias = eva.chunk_bias;
    summary_.chunk = attention_.visibility.chunk;
    summary_.adapter = eva.adapter;
    summary_.proposal = eva.proposal;
    layer_ = static_cast<std::uint32_t>(arguments.layer);
    find_parameters(arguments);
  }

  bool trained() const override {
    for (const Entry& entry : entries_)
      if (entry.parameter->trained) return true;
    return false;
  }
  std::int64_t chunks(std::int64_t tokens) const override { return attention_.visibility.chunks(tokens); }

  void project(const PassContext& pass, const BlockActivations& saved,
               const FusedProjection& x) const override {
    const Views at = views(pass.extent, saved);
    pass.ops.qkv_summary_forward(at.q, at.k, at.v, at.kappa, at.beta, x.qkv, x.cosine, x.sine,
                                 gather(&Parameter::weight), summary_of(pass));
  }

  void forward(const PassContext& pass, const BlockActivations& saved) const override {
    const Views at = views(pass.extent, saved);
    pass.ops.attention_forward(at.out, at.log_sum_exp, at.q, at.k, at.v, at.kappa, at.beta,
                               gather(&Parameter::weight).chunk_bias, attention_);
  }

  void backward(const PassContext& pass, const BlockActivations& saved, const Workspace& work,
                const FusedProjection& dx) const override {
    const Views at = views(pass.extent, saved);
    const EvaParameters weights = gather(&Parameter::weight);
    const EvaParameters gradients = gather(&Parameter::gradient);
    const Tensor dq = shaped(work.dq, at.q.shape), dk = shaped(work.dk, at.q.shape),
                 dv = shaped(work.dv, at.q.shape);
    Tensor dkappa, dbeta;
    if (at.kappa) {
      dkappa = shaped(work.dkappa, at.kappa.shape);
      dbeta = shaped(work.dbeta, at.kappa.shape);
    }
    pass.ops.attention_backward(dq, dk, dv, dkappa, dbeta, gradients.chunk_bias,
                                shaped(work.dcore_out, at.out.shape), at.out, at.log_sum_exp, at.q, at.k,
                                at.v, at.kappa, at.beta, weights.chunk_bias, attention_);
    pass.ops.qkv_summary_backward(dx.qkv, gradients, dq, dk, dv, dkappa, dbeta, at.q, at.k, at.v, dx.cosine,
                                  dx.sine, weights, summary_of(pass));
  }

  void plan_cache(MemoryPlan& plan, LayerCache& cache, Extent largest, DType compute) const override {
    plan_layer_cache(plan, cache, attention_.visibility, heads_, head_dim_, largest, compute);
  }

  void prefill(const PassContext& pass, const BlockActivations& saved, const Workspace& work,
               const FusedProjection& x, const LayerCache& cache,
               const PromptSegment& segment) const override {
    const Views at = views(pass.extent, saved);
    const EvaParameters weights = gather(&Parameter::weight);
    pass.ops.qkv_summary_forward(at.q, at.k, at.v, at.kappa, at.beta, x.qkv, x.cosine, x.sine, weights,
                                 summary_);
    attend_segment(pass, {at.out, at.log_sum_exp, at.q, at.k, at.v, at.kappa, at.beta, weights.chunk_bias},
                   work, cache, attention_, segment);
  }

  void decode(const PassContext& pass, const BlockActivations& saved, const LayerCache& cache,
              const CachePlaces& places) const override {
    const std::int64_t N = pass.extent.sequences;
    const EvaParameters weights = gather(&Parameter::weight);
    pass.ops.chunk_summary_cached(cache, weights, summary_, places);
    pass.ops.attention_cached(shaped(saved.core_out, {N, heads_ * head_dim_}),
                              shaped(saved.q, {N, heads_, head_dim_}), cache, weights.chunk_bias, attention_,
                              places);
  }

 private:
  struct Entry {
    Tensor EvaParameters::*member;
    Parameter* parameter;
  };
  struct Views {
    Tensor q, k, v, kappa, beta, out, log_sum_exp;
  };

  void find_parameters(const CoreArguments& arguments) {
    const struct {
      const char* name;
      Tensor EvaParameters::*member;
    } table[] = {
        {"key_proj.weight", &EvaParameters::key_weight},
        {"key_proj.bias", &EvaParameters::key_bias},
        {"key_norm.weight", &EvaParameters::key_norm_weight},
        {"key_norm.bias", &EvaParameters::key_norm_bias},
        {"query_proj.weight", &EvaParameters::query_weight},
        {"query_proj.bias", &EvaParameters::query_bias},
        {"query_norm.weight", &EvaParameters::query_norm_weight},
        {"query_norm.bias", &EvaParameters::query_norm_bias},
        {"mu", &EvaParameters::mu},
        {"phi", &EvaParameters::phi},
        {"chunk_bias", &EvaParameters::chunk_bias},
    };
    for (const auto& row : table)
      if (Parameter* found = arguments.parameters.find(arguments.layer_name + ".attention.eva." + row.name))
        entries_.push_back({row.member, found});
  }

  // One tensor of each parameter: its weight, or its gradient.
  EvaParameters gather(Tensor Parameter::*which) const {
    EvaParameters out;
    for (const Entry& entry : entries_) out.*entry.member = entry.parameter->*which;
    return out;
  }

  ChunkSummaryConfig summary_of(const PassContext& pass) const {
    ChunkSummaryConfig config = summary_;
    config.noise = pass.noise;
    config.noise.layer = layer_;
    return config;
  }

  // kappa and beta are absent where the sequence has no complete chunk.
  Views views(const Extent& extent, const BlockActivations& saved) const {
    const auto [B, T] = extent;
    const std::int64_t C = chunks(T);
    const Shape per_head{B, heads_, T, head_dim_}, per_chunk{B, heads_, C, head_dim_};
    Views at{shaped(saved.q, per_head),
             shaped(saved.k, per_head),
             shaped(saved.v, per_head),
             {},
             {},
             shaped(saved.core_out, {B, T, heads_ * head_dim_}),
             shaped(saved.log_sum_exp, {B, heads_, T})};
    if (C > 0) {
      at.kappa = shaped(saved.kappa, per_chunk);
      at.beta = shaped(saved.beta, per_chunk);
    }
    return at;
  }

  AttentionConfig attention_;
  ChunkSummaryConfig summary_;
  std::vector<Entry> entries_;
  std::int64_t heads_, head_dim_;
  std::uint32_t layer_;
};

}  // namespace

std::unique_ptr<AttentionCore> make_eva_attention(const CoreArguments& arguments) {
  return std::make_unique<EvaAttention>(arguments);
}

}  // namespace flasheva
