// Attention: from the normed residual stream to the output of `dense`.
//
//     q, k, v = split(query_key_value(x)), rotary(q), rotary(k)
//     out = dense(core(q, k, v))
//
// The core is what differs between variants: an AttentionCore. Adding a variant is one file with a core and
// one row in the table of attention.cpp.
#pragma once

#include <memory>
#include <string>

#include "src/config/model_config.h"
#include "src/layers/cached_attention.h"
#include "src/layers/linear.h"

namespace flasheva {

// The fused projection (B, T, 3D) of a pass, or its gradient, and the angles of its positions, (>= T, R),
// absent without rotary dimensions.
struct FusedProjection {
  Tensor qkv, cosine, sine;
};

// softmax attention of one kind over queries, keys and values (B, H, T, d).
class AttentionCore {
 public:
  virtual ~AttentionCore() = default;

  // True if any parameter of the core's own is trained.
  virtual bool trained() const = 0;
  // Chunks that T tokens give: the C of kappa and beta.
  virtual std::int64_t chunks(std::int64_t tokens) const = 0;

  // saved.q, k, v = split and turned from x, and saved.kappa, beta = their summaries, where the core has any.
  virtual void project(const PassContext& pass, const BlockActivations& saved,
                       const FusedProjection& x) const = 0;
  // saved.core_out (B, T, D) = from those; whatever backward needs is left in `saved`.
  virtual void forward(const PassContext& pass, const BlockActivations& saved) const = 0;
  // dx.qkv =, parameter gradients +=, from work.dcore_out (B, T, D).
  virtual void backward(const PassContext& pass, const BlockActivations& saved, const Workspace& work,
                        const FusedProjection& dx) const = 0;

  // Foresees the cache of sequences that grow: largest.sequences of largest.tokens at most.
  virtual void plan_cache(MemoryPlan& plan, LayerCache& cache, Extent largest, DType compute) const = 0;
  // saved.core_out (1, T, D) = from x, a segment of one sequence, and what is cached before it.
  virtual void prefill(const PassContext& pass, const BlockActivations& saved, const Workspace& work,
                       const FusedProjection& x, const LayerCache& cache,
                       const PromptSegment& segment) const = 0;
  // saved.core_out (N, D) = from saved.q (N, H, d), whose keys and values are cached already.
  virtual void decode(const PassContext& pass, const BlockActivations& saved, const LayerCache& cache,
                      const CachePlaces& places) const = 0;
};

// What a core is built from.
struct CoreArguments {
  const ModelConfig& config;
  ParameterSource& parameters;
  std::string layer_name;  // gpt_neox.layers.3
  int layer;
};

// exact_attention.cpp: kinds full and sliding. eva_attention.cpp: kind eva.
std::unique_ptr<AttentionCore> make_exact_attention(const CoreArguments& arguments);
std::unique_ptr<AttentionCore> make_eva_attention(const CoreArguments& arguments);

class Attention {
 public:
  Attention(const CoreArguments& arguments);

  bool trained() const { return qkv_.trained() || core_->trained() || dense_.trained(); }
  bool needs_input() const { return qkv_.weight_trained(); }
  const AttentionCore& core() const { return *core_; }

  // out (N, D) = attention(x (N, D)). cosine, sine: (>= T, R), absent without rotary dimensions.
  void forward(const PassContext& pass, Tensor out, Tensor x, const BlockActivations& saved,
               const Workspace& work, Tensor cosine, Tensor sine) const;
  // Its three steps: saved.q, k, v, kappa, beta = from x; saved.core_out = from those; out = from that.
  void project_in(const PassContext& pass, Tensor x, const BlockActivations& saved, const Workspace& work,
                  Tensor cosine, Tensor sine) const;
  void attend(const PassContext& pass, const BlockActivations& saved) const { core_->forward(pass, saved); }
  void project_out(const PassContext& pass, Tensor out, const BlockActivations& saved) const;
  // The whole for a segment of a cached sequence (pass.extent 1 x T), and for the next token of N of them
  // (N x 1). cosine, sine: of every position that the cache has room for.
  void prefill(const PassContext& pass, Tensor out, Tensor x, const BlockActivations& saved,
               const Workspace& work, Tensor cosine, Tensor sine, const LayerCache& cache,
               const PromptSegment& segment) const;
  void decode(const PassContext& pass, Tensor out, Tensor x, const BlockActivations& saved,
              const Workspace& work, Tensor cosine, Tensor sine, const LayerCache& cache,
              const CachePlaces& places) const;
  // dx (N, D) =, optional. x is not read where query_key_value.weight is frozen.
  void backward(const PassContext& pass, Tensor dx, Tensor dout, Tensor x, const BlockActivations& saved,
                const Workspace& work, Tensor cosine, Tensor sine) const;

 private:
  Linear qkv_, dense_;
  std::unique_ptr<AttentionCore> core_;
  std::int64_t heads_, head_dim_;
};

}  // namespace flasheva
