#include "src/model/scratch.h"

#include <algorithm>

#include "kernels/cuda/chunk_scratch.h"
#include "kernels/cuda/scratch_layouts.h"
#include "src/model/parameters.h"

namespace flasheva {

namespace {

// What the operations of a model are given.
struct Shapes {
  const ModelConfig& config;
  DType compute;
  int multiprocessors;

  DType acc() const { return accumulation_type(compute); }
  Visibility visibility(const LayerAttention& layer) const {
    return {layer.kind, config.eva.window_kind, config.eva.chunk_visibility, layer.window, layer.chunk};
  }

  // Of all gradients, in at most twice as many pieces as there are tensors where ranks share them, or of
  // activations.
  std::size_t norms(std::int64_t rows) const {
    const ParameterTable parameters(config);
    return most_squares_scratch(2 * static_cast<std::int64_t>(parameters.all().size()),
                                std::max(parameters.count(), rows * config.hidden_size));
  }

  // Of `sequences` sequences of `tokens` tokens.
  std::size_t attention_backward(const LayerAttention& layer, std::int64_t sequences,
                                 std::int64_t tokens) const {
    const std::int64_t H = config.num_attention_heads, d = config.head_dim(),
                       C = visibility(layer).chunks(tokens);
    const AttentionSizes sizes{sequences, H, tokens, tokens, C, d};
    const std::size_t attention = scratch_bytes<AttentionBackwardScratch>(acc(), sizes, multiprocessors);
    if (layer.kind != AttentionKind::eva) return attention;
    const ChunkSummaryConfig summary{layer.chunk, config.eva.adapter, config.eva.proposal, {}};
    const summary::Problem problem{sequences, H, tokens, C, layer.chunk, d, summary};
    return std::max(attention, scratch_bytes<summary::BackwardScratch>(
                                   acc(), problem, summary::TrainedWeights{{true, true}},
                                   summary::backward_blocks(problem, multiprocessors)));
  }

  std::size_t attention_cached(const LayerAttention& layer, const Extent& cached) const {
    const std::int64_t keys =
        visibility(layer).cache_rows(cached.tokens) + visibility(layer).chunks(cached.tokens);
    return scratch_bytes<CachedAttentionScratch>(acc(), cached.sequences * config.num_attention_heads,
                                                 splits_of_cache(keys), config.head_dim());
  }

  std::size_t training(const Extent& largest) const {
    const std::int64_t N = largest.rows(), D = config.hidden_size;
    std::size_t most = std::max({norms(N), scratch_bytes<SortedTokensScratch>(N),
                                 most_layernorm_scratch(N, D, compute, multiprocessors)});
    for (const std::int64_t columns : {D, 3 * D, config.intermediate_size})
      most = std::max(most, most_column_sums_scratch(N, columns, compute, multiprocessors));
    // Fewer sequences may take more: their queries are cut into more segments.
    for (std::int64_t sequences = 1; sequences <= largest.sequences; ++sequences)
      for (const LayerAttention& layer : config.attention)
        most = std::max(most, attention_backward(layer, sequences, largest.tokens));
    return most;
  }

  std::size_t inference(const Extent& cached) const {
    std::size_t most = norms(cached.rows());
    for (const LayerAttention& layer : config.attention)
      most = std::max(most, attention_cached(layer, cached));
    return most;
  }
};

void plan_scratch(MemoryPlan& plan, Tensor& scratch, std::size_t of_operations) {
  const std::size_t bytes = ScratchPieces::alignment + products_workspace_bytes + of_operations;
  plan.add(scratch, "scratch memory", DType::u8, {static_cast<std::int64_t>(bytes)});
}

}  // namespace

void plan_training_scratch(MemoryPlan& plan, Tensor& scratch, const PlannedDevice& device,
                           const ModelConfig& config, Extent largest, DType compute) {
  scratch = Tensor{};
  if (device.kind == Device::cpu) return;
  plan_scratch(plan, scratch, Shapes{config, compute, device.multiprocessors}.training(largest));
}

void plan_inference_scratch(MemoryPlan& plan, Tensor& scratch, const PlannedDevice& device,
                            const ModelConfig& config, Extent cached, DType compute) {
  scratch = Tensor{};
  if (device.kind == Device::cpu) return;
  plan_scratch(plan, scratch, Shapes{config, compute, device.multiprocessors}.inference(cached));
}

}  // namespace flasheva
