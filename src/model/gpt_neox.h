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
#include <tuple>
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

// The head takes `rows` rows in slices of so many, of which the last may have fewer; `largest`: the rows of
// the largest batch.
std::int64_t head_slice_rows(Device device, std::int64_t rows, std::int64_t largest, std::int64_t vocab_size);

class GptNeoX {
 public:
  // `config` and `parameters` must outlive the model.
  GptNeoX(const ModelConfig& config, ParameterTable& parameters);

  const ModelConfig& config() const { return config_; }

  // Foresees activations and workspace for micro batches up to `largest`; reads which parameters are trained.
  // Call prepare() once the plan is bound. Without `training`, nothing is kept for a backward pass.
  void plan(MemoryPlan& plan, Device device, Extent largest, DType compute, bool training,
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
  // Of each target: its loss in nats in the last evaluate() or forward_backward(), and 1 where it had the
  // largest logit in the last evaluate(); uint8. 0 where it does not count. (N) or longer.
  Tensor losses() const { return losses_; }
  Tensor correct() const { return correct_; }

  // Called during the backward pass when the gradients of a layer are final, and so are those behind it; the
  // number of layers stands for final norm and head.
  using LayerDone = std::function<void(int layer)>;

  // losses() =; gradients of trained parameters += scale (1) acc x gradient of the summed losses. The host
  // waits for nothing. Planned with `training`; every call since has the same ops and noise, but for what
  // noise.place holds, and on a GPU scale, gradients and the batches of one size stand where they stood.
  void forward_backward(const PassContext& pass, const TokenBatch& batch, Tensor scale,
                        const LayerDone& layer_done = {});

  // (1) int32: where the first value that is not finite stood in the last forward_backward. 0 for the
  // embedding, 1 + l for the output of layer l, 1 + the number of layers for what comes behind them; -1 where
  // all losses were finite.
  Tensor first_not_finite() const { return first_not_finite_; }

 private:
  // Of forward_backward: what precedes the blocks' backward pass, each block's, and the embedding's.
  struct PassGraphs {
    std::unique_ptr<OperationGraph> losses;
    std::map<std::size_t, std::unique_ptr<OperationGraph>> blocks;
    std::unique_ptr<OperationGraph> embedding;
  };

  void plan_activations(MemoryPlan& plan, Extent largest, std::int64_t positions, DType compute,
                        bool training, Recompute recompute);
  void embed(const PassContext& pass, Tensor tokens);
  void forward_blocks(const PassContext& pass, AttentionErrors* errors = nullptr);
  template <class Step>
  void run_blocks(const PassContext& pass, const Step& step);
  void backward_head(const PassContext& pass, const TokenBatch& batch, Tensor scale, bool input_gradient);
  void find_not_finite(const PassContext& pass);
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
  Tensor first_not_finite_;                        // (1)
  HostStaging host_;                               // of rotary tables and losses
  // By sequences, tokens, and whether there is a mask.
  std::map<std::tuple<std::int64_t, std::int64_t, bool>, PassGraphs> graphs_;
};

}  // namespace flasheva
