#include "src/inference/decoder.h"

#include <algorithm>
#include <numeric>

#include "kernels/check.h"
#include "src/model/planned_memory.h"

namespace flasheva {

namespace {

// Large enough for fast products, small enough that a long prompt's activations stay small beside the
// weights.
constexpr std::int64_t segment_tokens = 512;

// A multiple of every layer's chunk, so that no chunk is cut by the end of a segment; or all `tokens`.
std::int64_t segment_of(const ModelConfig& config, std::int64_t tokens) {
  std::int64_t chunks = 1;
  for (const LayerAttention& layer : config.attention)
    if (layer.kind == AttentionKind::eva && chunks < tokens) chunks = std::lcm(chunks, layer.chunk);
  return std::min(tokens, (segment_tokens + chunks - 1) / chunks * chunks);
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
  segment_ = segment_of(config_, tokens);
  MemoryPlan plan;
  network_.plan_generation(plan, cache_, cached_, segment_, compute_);
  plan.add(logits_, "logits", compute_, {S, config_.vocab_size});
  plan.add(tokens_, "tokens", DType::i32, {segment_});
  plan.add(next_, "tokens", DType::i32, {3 * S});
  plan.add(most_likely_, "tokens", DType::i32, {S});
  if (ops_.device() != Device::cpu && compute_ != DType::f32)
    plan.add(wide_logits_, "logits", DType::f32, {S, config_.vocab_size});
  plan_generation_scratch(plan, scratch_, ops_, config_, cached_, segment_, compute_);
  memory_ = std::make_unique<Buffer>(
      memory_for(plan, plan.bytes(), ops_, "lower --batch or --max-length, or use --precision bf16"));
  memory_->bind(plan);
  ops_.lend_scratch(scratch_);
  MemoryPlan host;
  host.add(host_logits_, "logits", DType::f32, {S, config_.vocab_size});
  host_memory_ = std::make_unique<Buffer>(host_memory_for(host, ops_, "lower --batch"));
  host_memory_->bind(host);
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
  run_prompt(sequence, prompt);
  widen_logits(logits, logits_.rows(0, 1));
}

std::span<const std::int32_t> Decoder::prefill_greedy(std::int64_t sequence,
                                                      std::span<const std::int32_t> prompt) {
  run_prompt(sequence, prompt);
  ops_.most_likely(most_likely_.rows(0, 1), logits_.rows(0, 1));
  return tokens_on_host(1);
}

void Decoder::run_prompt(std::int64_t sequence, std::span<const std::int32_t> prompt) {
  const auto length = static_cast<std::int64_t>(prompt.size());
  FLASHEVA_CHECK(0 < length && length <= cached_.tokens && 0 <= sequence && sequence < cached_.sequences);
  for (std::int64_t first = 0; first < length; first += segment_) {
    const std::int64_t count = std::min(segment_, length - first);
    staging_.write(ops_, tokens_.rows(0, count), [&](const Tensor& host) {
      std::copy_n(prompt.begin() + first, count, host.as<std::int32_t>());
    });
    const bool last = first + count == length;
    network_.prefill({ops_, {1, count}, {}}, last ? logits_.rows(0, 1) : Tensor{}, tokens_.rows(0, count),
                     cache_, {sequence, first});
  }
}

void Decoder::decode(std::span<float> logits, std::span<const NextToken> next) {
  run_step(next, false);
  widen_logits(logits, logits_.rows(0, static_cast<std::int64_t>(next.size())));
}

std::span<const std::int32_t> Decoder::decode_greedy(std::span<const NextToken> next) {
  run_step(next, true);
  return tokens_on_host(static_cast<std::int64_t>(next.size()));
}

void Decoder::run_step(std::span<const NextToken> next, bool greedy) {
  const auto N = static_cast<std::int64_t>(next.size());
  FLASHEVA_CHECK(0 < N && N <= cached_.sequences);
  staging_.write(ops_, next_.rows(0, 3 * N), [&](const Tensor& host) {
    auto* out = host.as<std::int32_t>();
    for (std::int64_t i = 0; i < N; ++i) {
      const auto [sequence, position, token] = next[static_cast<std::size_t>(i)];
      FLASHEVA_CHECK(0 <= position && position < cached_.tokens);
      out[i] = sequence;
      out[N + i] = position;
      out[2 * N + i] = token;
    }
  });
  const CachePlaces places{next_.rows(0, N), next_.rows(N, N)};
  ops_.replay(graphs_[{N, greedy}], [&] {
    network_.decode({ops_, {N, 1}, {}}, logits_.rows(0, N), next_.rows(2 * N, N), cache_, places);
    if (greedy) ops_.most_likely(most_likely_.rows(0, N), logits_.rows(0, N));
  });
}

std::span<const std::int32_t> Decoder::tokens_on_host(std::int64_t rows) {
  const Tensor host = staging_.read(ops_, most_likely_.rows(0, rows));
  return {host.as<std::int32_t>(), static_cast<std::size_t>(rows)};
}

void Decoder::widen_logits(std::span<float> out, Tensor computed) {
  FLASHEVA_CHECK(static_cast<std::int64_t>(out.size()) == computed.size());
  const Tensor host = view_of(out.data(), computed.shape);
  if (ops_.device() == Device::cpu) return ops_.cast(host, computed);
  if (wide_logits_) {
    const Tensor wide = wide_logits_.rows(0, computed.dim(0));
    ops_.cast(wide, computed);
    computed = wide;
  }
  ops_.copy(host, computed);
}

void Decoder::fill_caches(std::uint64_t seed) {
  std::uint32_t stream = 0;
  Tensor values;
  MemoryPlan plan;
  plan.add(values, "random values", DType::f32, {config_.head_dim() * 4096});
  Buffer memory(plan.bytes(), ops_);
  memory.bind(plan);
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
