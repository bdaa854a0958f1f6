// GPT-NeoX: embedding, blocks, final norm, head and loss, forward and backward, over parameters that a
// ParameterTable owns.
//
//     x_0 = embed_in[tokens];  x_{l+1} = block_l(x_l);  logits = embed_out final_layer_norm(x_L)
//     loss = cross-entropy in nats of each target token
//
// The head works on slices of tokens, so that logits never exist for the whole micro batch.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/host_staging.h"
#include "src/layers/block.h"
#include "src/model/attention_error.h"
#include "src/model/parameters.h"

namespace flasheva {

// A micro batch on the device.
struct TokenBatch {
  Extent extent;
  Tensor tokens;   // (N) int32, N = B T
  Tensor targets;  // (N) int32
  Tensor mask;     // (N) uint8, optional: a target whose mask is 0 does not count
};

struct LossSums {
  double nats = 0;           // summed over counted targets
  std::int64_t correct = 0;  // counted targets that had the largest logit
};

class GptNeoX {
 public:
  // `config` and `parameters` must outlive the model.
  GptNeoX(const ModelConfig& config, ParameterTable& parameters);

  const ModelConfig& config() const { return config_; }

  // Foresees activations and workspace for micro batches up to `largest`; reads which parameters are trained.
  // Call prepare() once the plan is bound. Without `training`, nothing is kept for a backward pass.
  void plan(MemoryPlan& plan, Extent largest, DType compute, bool training,
            Recompute recompute = Recompute::none);
  // The same for generation: a cache of every layer for cached.sequences sequences of cached.tokens tokens at
  // most, prompts in segments of `segment` tokens, a multiple of every layer's chunk.
  void plan_generation(MemoryPlan& plan, std::vector<LayerCache>& cache, Extent cached, std::int64_t segment,
                       DType compute);
  // Fills the rotary tables, and gives each block the activations that blocks share.
  void prepare(Ops& ops);

  // out (rows, V), of the compute type, = logits of the last `rows` of tokens (N).
  void logits(const PassContext& pass, Tensor out, Tensor tokens);

  // A segment of a cached sequence (pass.extent 1 x T): tokens (T) at segment.first_position on. The first
  // begins at 0, and each of the others where the one before it ended, after a multiple of every layer's
  // chunk. logits (1, V), optional, = those of the last token.
  void prefill(const PassContext& pass, Tensor logits, Tensor tokens, const std::vector<LayerCache>& cache,
               const PromptSegment& segment);
  // The next token of N cached sequences (pass.extent N x 1): logits (N, V) = after tokens (N) at `places`.
  void decode(const PassContext& pass, Tensor logits, Tensor tokens, const std::vector<LayerCache>& cache,
              const CachePlaces& places);

  // The losses of a batch, without gradients; `errors`, where given, gets each layer's attention error.
  LossSums evaluate(const PassContext& pass, const TokenBatch& batch, AttentionErrors* errors = nullptr);
  // Of each target of the last evaluate(): its loss in nats, and 1 where it had the largest logit; uint8. 0
  // where it does not count. (N) or longer.
  Tensor losses() const { return losses_; }
  Tensor correct() const { return correct_; }

  // Called during the backward pass when the gradients of a layer are final, and so are those behind it; the
  // number of layers stands for final norm and head.
  using LayerDone = std::function<void(int layer)>;

  // Gradients of trained parameters += loss_scale x gradient of the summed losses; returns the summed losses
  // in nats. Planned with `training`; every call since has the same ops and noise, but for what noise.place
  // holds, and gradients stand where they stood.
  double forward_backward(const PassContext& pass, const TokenBatch& batch, double loss_scale,
                          const LayerDone& layer_done = {});

  // Where the first value that is not finite stands in the last forward_backward: the number of the layer
  // whose output it is in; -1 for the embedding, the number of layers for what comes behind them.
  int first_non_finite_layer(const PassContext& pass) const;

 private:
  // Of forward_backward: all blocks forward, and each of them backward.
  struct PassGraphs {
    std::unique_ptr<OperationGraph> forward;
    std::map<std::size_t, std::unique_ptr<OperationGraph>> backward;
  };

  void plan_activations(MemoryPlan& plan, Extent largest, std::int64_t positions, DType compute,
                        bool training, Recompute recompute);
  void embed(const PassContext& pass, Tensor tokens);
  void forward_blocks(const PassContext& pass, AttentionErrors* errors = nullptr);
  template <class Step>
  void run_blocks(const PassContext& pass, const Step& step);
  double backward_head(const PassContext& pass, const TokenBatch& batch, double loss_scale,
                       bool input_gradient);
  void backward_blocks(const PassContext& pass, PassGraphs& graphs, const LayerDone& layer_done);
  void backward_block(const PassContext& pass, std::size_t layer);
  bool trained_up_to(std::size_t layer) const;  // the embedding or any block below or at `layer`

  const ModelConfig& config_;
  Parameter& embed_in_;
  Parameter& embed_out_;
  LayerNorm final_norm_;
  std::vector<std::unique_ptr<Block>> blocks_;
  Recompute recompute_ = Recompute::none;

  // One a block, with the tensors of shared_ that it has not of its own.
  std::vector<BlockActivations> saved_;
  BlockActivations shared_;
  Workspace work_;
  Tensor cosine_, sine_;                           // (positions, R)
  Tensor output_;                                  // (N, D) of the last block
  Tensor final_mean_, final_rstd_, final_normed_;  // (N), (N), (N, D)
  Tensor dx_;                                      // (N, D) gradient of the residual stream
  Tensor head_logits_;                             // (rows of a slice, V)
  Tensor losses_, correct_;                        // (N)
  HostStaging host_;                               // of rotary tables and losses
  std::map<std::pair<std::int64_t, std::int64_t>, PassGraphs> graphs_;  // by sequences and tokens
};

}  // namespace flasheva
