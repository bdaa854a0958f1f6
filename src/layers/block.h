// One GPT-NeoX transformer block.
//
//     parallel residual:    out = x + attention(norm1 x) + mlp(norm2 x)
//     sequential residual:  y = x + attention(norm1 x);  out = y + mlp(norm2 y)
#pragma once

#include "src/layers/activations.h"
#include "src/layers/attention.h"
#include "src/layers/mlp.h"
#include "src/layers/norm.h"

namespace flasheva {

class Block {
 public:
  explicit Block(const CoreArguments& arguments);

  bool trained() const {
    return attention_.trained() || mlp_.trained() || norm1_.trained() || norm2_.trained();
  }

  // Foresees these groups of `saved` for micro batches up to `largest`. Reads which parameters are trained.
  void plan(MemoryPlan& plan, BlockActivations& saved, Extent largest, DType compute,
            const ActivationGroups& groups) const;
  // Foresees the block's cache for sequences that grow.
  void plan_cache(MemoryPlan& plan, LayerCache& cache, Extent largest, DType compute) const {
    attention_.core().plan_cache(plan, cache, largest, compute);
  }
  // Chunks that T tokens give in this block.
  std::int64_t chunks(std::int64_t tokens) const { return attention_.core().chunks(tokens); }

  // out (N, D) = block(saved.input (N, D)); out may be saved.input.
  void forward(const PassContext& pass, Tensor out, const BlockActivations& saved, const Workspace& work,
               Tensor cosine, Tensor sine) const;
  // The same for a segment of a cached sequence, and for the next token of N of them (Attention).
  void prefill(const PassContext& pass, Tensor out, const BlockActivations& saved, const Workspace& work,
               Tensor cosine, Tensor sine, const LayerCache& cache, const PromptSegment& segment) const;
  void decode(const PassContext& pass, Tensor out, const BlockActivations& saved, const Workspace& work,
              Tensor cosine, Tensor sine, const LayerCache& cache, const CachePlaces& places) const;
  // What forward() left of the activations that are not kept, again.
  void rebuild(const PassContext& pass, const BlockActivations& saved, const Workspace& work, Tensor cosine,
               Tensor sine, Recompute recompute) const;
  // dx (N, D): in, the gradient of out; out, the gradient of the input, unless `input_gradient` is false:
  // then nothing below is trained and dx is left undefined.
  void backward(const PassContext& pass, Tensor dx, bool input_gradient, const BlockActivations& saved,
                const Workspace& work, Tensor cosine, Tensor sine) const;

 private:
  // What the branches read: norm1 of saved.input, with a parallel residual norm2 of it too; norm2 of
  // saved.middle.
  void first_norms(const PassContext& pass, const BlockActivations& saved, const Workspace& work) const;
  void second_norm(const PassContext& pass, const BlockActivations& saved, const Workspace& work) const;
  template <class Attend>
  void run(const PassContext& pass, Tensor out, const BlockActivations& saved, const Workspace& work,
           const Attend& attend) const;
  void backward_parallel(const PassContext& pass, Tensor dx, bool input_gradient,
                         const BlockActivations& saved, const Workspace& work, Tensor cosine,
                         Tensor sine) const;
  void backward_sequential(const PassContext& pass, Tensor dx, bool input_gradient,
                           const BlockActivations& saved, const Workspace& work, Tensor cosine,
                           Tensor sine) const;

  const ModelConfig& config_;
  LayerNorm norm1_, norm2_;
  Attention attention_;
  Mlp mlp_;
};

// Foresees the tensors that all blocks share; `chunks` is the largest of any block. Without `training`, those
// of the backward pass are left out.
void plan_workspace(MemoryPlan& plan, Workspace& work, const ModelConfig& config, Extent largest,
                    std::int64_t chunks, DType compute, bool training);

}  // namespace flasheva
