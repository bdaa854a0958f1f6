#include "src/model/scratch.h"

#include <algorithm>
#include <array>

#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/scratch_sizes.h"
#include "kernels/cuda/chunk_scratch.h"
#include "kernels/cuda/scratch_layouts.h"
#include "src/model/gpt_neox.h"
#include "src/model/parameters.h"

namespace flasheva {

namespace {

// What the operations of a model are given.
struct Shapes {
  const ModelConfig& config;
  DType compute;

  AttentionSizes attention(const LayerAttention& layer, const Extent& extent) const {
    const auto [B, T] = extent;
    return {B, config.num_attention_heads, T, T, config.visibility(layer).chunks(T), config.head_dim()};
  }
  // Of a layer of kind eva.
  summary::Problem summaries(const LayerAttention& layer, const Extent& extent) const {
    const auto [B, H, T, S, C, d] = attention(layer, extent);
    return {B, H, T, C, layer.chunk, d, {layer.chunk, config.eva.adapter, config.eva.proposal, {}}};
  }
};

// --- a GPU: bytes that all operations share ----------------------------------------------------------------

struct OnGpu : Shapes {
  int multiprocessors;

  DType acc() const { return accumulation_type(compute); }

  // Of all gradients, in at most twice as many pieces as there are tensors where ranks share them, or of
  // activations.
  std::size_t norms(std::int64_t rows) const {
    const ParameterTable parameters(config);
    return most_squares_scratch(2 * static_cast<std::int64_t>(parameters.all().size()),
                                std::max(parameters.count(), rows * config.hidden_size));
  }

  std::size_t attention_backward(const LayerAttention& layer, const Extent& extent) const {
    const std::size_t attention_bytes =
        scratch_bytes<AttentionBackwardScratch>(acc(), attention(layer, extent), multiprocessors);
    if (layer.kind != AttentionKind::eva) return attention_bytes;
    const summary::Problem problem = summaries(layer, extent);
    return std::max(attention_bytes, scratch_bytes<summary::BackwardScratch>(
                                         acc(), problem, summary::TrainedWeights{{true, true}},
                                         summary::backward_blocks(problem, multiprocessors)));
  }

  std::size_t attention_cached(const LayerAttention& layer, const Extent& cached) const {
    const std::int64_t keys =
        config.visibility(layer).cache_rows(cached.tokens) + config.visibility(layer).chunks(cached.tokens);
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
        most = std::max(most, attention_backward(layer, {sequences, largest.tokens}));
    return most;
  }

  std::size_t generation(const Extent& cached) const {
    std::size_t most = 0;
    for (const LayerAttention& layer : config.attention)
      most = std::max(most, attention_cached(layer, cached));
    return most;
  }
};

constexpr const char* category = "scratch memory";

void plan_gpu_scratch(MemoryPlan& plan, ScratchMemory& scratch, std::size_t of_operations) {
  const std::size_t bytes = ScratchPieces::alignment + products_workspace_bytes + of_operations;
  plan.add(scratch.shared, category, DType::u8, {static_cast<std::int64_t>(bytes)});
}

// --- the CPU ----------------------------------------------------------------------------------------------

struct OnCpu : Shapes {
  // Of the four linear layers of a block.
  std::array<LinearSizes, 4> linears(std::int64_t rows) const {
    const std::int64_t D = config.hidden_size, I = config.intermediate_size;
    return {{{rows, D, 3 * D}, {rows, D, D}, {rows, D, I}, {rows, I, D}}};
  }
  LinearSizes head(std::int64_t rows) const { return {rows, config.hidden_size, config.vocab_size}; }

  // Products of few rows are computed in another way.
  ScratchBytes linear_forward(std::int64_t rows) const {
    ScratchBytes most;
    for (const std::int64_t count : {std::min(few_rows, rows), rows})
      for (const LinearSizes& sizes : linears(count))
        most.cover(linear_forward_scratch(compute, sizes, true));
    return most;
  }
  ScratchBytes head_forward(std::int64_t rows) const {
    ScratchBytes most = linear_forward_scratch(compute, head(std::min(few_rows, rows)), false);
    most.cover(linear_forward_scratch(compute, head(rows), false));
    return most;
  }

  // Of the losses of batches up to `largest`: of each size as it comes, for oneDNN may ask for more where
  // there are fewer rows.
  ScratchBytes products_of_losses(const Extent& largest, const Extent& extent, bool backward) const {
    const std::int64_t N = extent.rows(),
                       slice = head_slice_rows(Device::cpu, N, largest.rows(), config.vocab_size);
    ScratchBytes most = linear_forward(N);
    if (backward)
      for (const LinearSizes& sizes : linears(N)) most.cover(linear_backward_scratch(compute, sizes));
    for (const std::int64_t rows : {slice, (N - 1) % slice + 1}) {
      most.cover(head_forward(rows));
      if (backward) most.cover(linear_backward_scratch(compute, head(rows)));
    }
    return most;
  }

  ScratchBytes attention_forward(const Extent& largest) const {
    ScratchBytes most;
    for (const LayerAttention& layer : config.attention) {
      most.cover(attention_forward_scratch(compute, attention(layer, largest)));
      if (layer.kind == AttentionKind::eva)
        most.cover(summary_forward_scratch(compute, summaries(layer, largest)));
    }
    return most;
  }

  ScratchBytes attention_backward(const Extent& largest) const {
    ScratchBytes most;
    for (const LayerAttention& layer : config.attention) {
      most.cover(attention_backward_scratch(compute, attention(layer, largest)));
      if (layer.kind == AttentionKind::eva)
        most.cover(summary_backward_scratch(compute, summaries(layer, largest)));
    }
    return most;
  }

  ScratchBytes forward(const Extent& largest) const {
    ScratchBytes most = attention_forward(largest);
    most.cover(products_of_losses(largest, largest, false));
    most.cover(squares_scratch(largest.rows() * config.hidden_size));
    return most;
  }

  ScratchBytes training(const Extent& largest) const {
    ScratchBytes most = forward(largest);
    most.cover(attention_backward(largest));
    for (std::int64_t sequences = 1; sequences <= largest.sequences; ++sequences)
      most.cover(products_of_losses(largest, {sequences, largest.tokens}, true));
    most.cover(layernorm_backward_scratch(compute, config.hidden_size));
    most.cover(squares_scratch(ParameterTable(config).largest()));
    return most;
  }

  // The keys that a segment of a prompt sees: its own and those of before it.
  ScratchBytes attention_of_prompts(const LayerAttention& layer, const Extent& cached,
                                    std::int64_t segment) const {
    AttentionSizes sizes = attention(layer, {1, segment});
    sizes.S = cached.tokens;
    if (layer.kind != AttentionKind::full)
      sizes.S = std::min(cached.tokens, layer.window + layer.chunk + segment);
    sizes.C = config.visibility(layer).chunks(cached.tokens);
    return attention_forward_scratch(compute, sizes);
  }

  ScratchBytes generation(const Extent& cached, std::int64_t segment) const {
    ScratchBytes most = linear_forward(segment);
    most.cover(linear_forward(cached.sequences));
    most.cover(head_forward(cached.sequences));
    most.cover(attention_cached_scratch(compute, config.head_dim()));
    for (const LayerAttention& layer : config.attention) {
      most.cover(attention_of_prompts(layer, cached, segment));
      if (layer.kind == AttentionKind::eva)
        most.cover(summary_forward_scratch(compute, summaries(layer, {1, segment})));
    }
    return most;
  }
};

void plan_cpu_scratch(MemoryPlan& plan, ScratchMemory& scratch, const ScratchBytes& bytes) {
  plan.add(scratch.shared, category, DType::u8, {bytes.shared});
  plan.add(scratch.of_threads, category, DType::u8, thread_rows(bytes.of_a_thread));
}

}  // namespace

void plan_training_scratch(MemoryPlan& plan, ScratchMemory& scratch, const PlannedDevice& device,
                           const ModelConfig& config, Extent largest, DType compute) {
  scratch = {};
  const Shapes shapes{config, compute};
  if (device.kind == Device::cpu)
    plan_cpu_scratch(plan, scratch, OnCpu{shapes}.training(largest));
  else
    plan_gpu_scratch(plan, scratch, OnGpu{shapes, device.multiprocessors}.training(largest));
}

void plan_forward_scratch(MemoryPlan& plan, ScratchMemory& scratch, const PlannedDevice& device,
                          const ModelConfig& config, Extent largest, DType compute) {
  scratch = {};
  const Shapes shapes{config, compute};
  if (device.kind == Device::cpu)
    plan_cpu_scratch(plan, scratch, OnCpu{shapes}.forward(largest));
  else
    plan_gpu_scratch(plan, scratch, OnGpu{shapes, device.multiprocessors}.norms(largest.rows()));
}

void plan_generation_scratch(MemoryPlan& plan, ScratchMemory& scratch, const PlannedDevice& device,
                             const ModelConfig& config, Extent cached, std::int64_t segment, DType compute) {
  scratch = {};
  const Shapes shapes{config, compute};
  if (device.kind == Device::cpu)
    plan_cpu_scratch(plan, scratch, OnCpu{shapes}.generation(cached, segment));
  else
    plan_gpu_scratch(plan, scratch, OnGpu{shapes, device.multiprocessors}.generation(cached));
}

}  // namespace flasheva
