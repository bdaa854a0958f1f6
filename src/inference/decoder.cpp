#include "src/inference/decoder.h"

#include <algorithm>
#include <numeric>

#include "kernels/check.h"

namespace flasheva {

namespace {

// Large enough for fast products, small enough that a long prompt's activations stay small beside the
// weights.
constexpr std::int64_t segment_tokens = 512;

// A multiple of every layer's chunk, so that no chunk is cut by the end of a segment.
std::int64_t segment_of(const ModelConfig& config) {
  std::int64_t chunks = 1;
  for (const LayerAttention& layer : config.attention)
    if (layer.kind == AttentionKind::eva) chunks = std::lcm(chunks, layer.chunk);
  return (segment_tokens + chunks - 1) / chunks * chunks;
}

}  // namespace

Decoder::Decoder(const std::filesystem::path& folder, Ops& ops, Precision precision, Extent cached)
    : LoadedModel(folder, ops, precision), cached_(cached) {
  take_memory();
}

Decoder::Decoder(const ModelConfig& config, Ops& ops, Precision precision, Extent cached, std::uint64_t seed)
    : LoadedModel(config, ops, precision, seed), cached_(cached) {
  take_memory();
}

void Decoder::take_memory() {
  const auto [S, tokens] = cached_;
  segment_ = segment_of(config_);
  MemoryPlan plan;
  network_.plan_generation(plan, cache_, cached_, std::min(segment_, tokens), compute_);
  plan.add(logits_, "logits", compute_, {S, config_.vocab_size});
  plan.add(tokens_, "tokens", DType::i32, {segment_});
  for (Tensor* tensor : {&next_tokens_, &sequences_, &positions_})
    plan.add(*tensor, "tokens", DType::i32, {S});
  memory_ = std::make_unique<Buffer>(plan.bytes());
  memory_->bind(plan);
  network_.prepare(ops_);
}

std::size_t Decoder::cache_bytes() const {
  std::size_t bytes = 0;
  for (const LayerCache& layer : cache_)
    for (const Tensor* tensor : {&layer.keys, &layer.values, &layer.queries, &layer.kappa, &layer.beta})
      if (*tensor) bytes += tensor->bytes();
  return bytes;
}

void Decoder::prefill(std::span<float> logits, std::int64_t sequence, std::span<const std::int32_t> prompt) {
  const auto length = static_cast<std::int64_t>(prompt.size());
  FLASHEVA_CHECK(0 < length && length <= cached_.tokens && 0 <= sequence && sequence < cached_.sequences);
  for (std::int64_t first = 0; first < length; first += segment_) {
    const std::int64_t count = std::min(segment_, length - first);
    std::copy_n(prompt.begin() + first, count, tokens_.as<std::int32_t>());
    const bool last = first + count == length;
    network_.prefill({ops_, {1, count}, {}}, last ? logits_.rows(0, 1) : Tensor{}, tokens_.rows(0, count),
                     cache_, {sequence, first});
  }
  widen_logits(logits, logits_.rows(0, 1));
}

void Decoder::decode(std::span<float> logits, std::span<const NextToken> next) {
  const auto N = static_cast<std::int64_t>(next.size());
  FLASHEVA_CHECK(0 < N && N <= cached_.sequences);
  for (std::int64_t i = 0; i < N; ++i) {
    const auto [sequence, position, token] = next[static_cast<std::size_t>(i)];
    FLASHEVA_CHECK(0 <= position && position < cached_.tokens);
    sequences_.as<std::int32_t>()[i] = sequence;
    positions_.as<std::int32_t>()[i] = position;
    next_tokens_.as<std::int32_t>()[i] = token;
  }
  const CachePlaces places{sequences_.rows(0, N), positions_.rows(0, N)};
  network_.decode({ops_, {N, 1}, {}}, logits_.rows(0, N), next_tokens_.rows(0, N), cache_, places);
  widen_logits(logits, logits_.rows(0, N));
}

void Decoder::widen_logits(std::span<float> out, Tensor computed) {
  FLASHEVA_CHECK(static_cast<std::int64_t>(out.size()) == computed.size());
  ops_.cast(view_of(out.data(), computed.shape), computed);
}

void Decoder::fill_caches(std::uint64_t seed) {
  std::uint32_t stream = 0;
  std::vector<float> head(static_cast<std::size_t>(config_.head_dim()) * 4096);
  const Tensor values = view_of(head.data(), {static_cast<std::int64_t>(head.size())});
  ops_.fill_normal(values, 1.0, seed, stream);
  for (const LayerCache& layer : cache_)
    for (const Tensor* tensor : {&layer.keys, &layer.values, &layer.queries, &layer.kappa, &layer.beta}) {
      if (!*tensor) continue;
      const Tensor all = tensor->reshaped({tensor->size()});
      for (std::int64_t first = 0; first < all.size(); first += values.size()) {
        const std::int64_t count = std::min(values.size(), all.size() - first);
        ops_.cast(all.rows(first, count), values.rows(0, count));
      }
    }
}

}  // namespace flasheva
