#include "src/layers/cached_attention.h"

namespace flasheva {

namespace {

// Sequence s of (S, H, R, d) as (1, H, R, d); absent stays absent.
Tensor of_sequence(Tensor all, std::int64_t s) {
  if (!all) return {};
  const Shape one{1, all.dim(1), all.dim(2), all.dim(3)};
  auto* data =
      static_cast<std::byte*>(all.data) + static_cast<std::size_t>(s * one.size()) * size_in_bytes(all.dtype);
  return {data, all.dtype, one, all.device};
}

}  // namespace

void plan_layer_cache(MemoryPlan& plan, LayerCache& cache, const Visibility& visibility, std::int64_t heads,
                      std::int64_t head_dim, Extent largest, DType compute) {
  const auto [S, tokens] = largest;
  const auto add = [&](Tensor& tensor, std::int64_t rows) {
    plan.add(tensor, "cache", compute, {S, heads, rows, head_dim});
  };
  cache = LayerCache{};
  for (Tensor* tensor : {&cache.keys, &cache.values}) add(*tensor, visibility.cache_rows(tokens));
  if (visibility.kind == AttentionKind::eva) add(cache.queries, visibility.chunk);
  if (const std::int64_t C = visibility.chunks(tokens); C > 0)
    for (Tensor* tensor : {&cache.kappa, &cache.beta}) add(*tensor, C);
}

void attend_segment(const PassContext& pass, const SegmentTensors& at, const Workspace& work,
                    const LayerCache& cache, AttentionConfig config, const PromptSegment& segment) {
  const auto [sequence, first] = segment;
  const std::int64_t H = at.k.dim(1), T = at.k.dim(2), d = at.k.dim(3);
  const std::int64_t old = first - config.visibility.first_token(first);
  Tensor keys = at.k, values = at.v;
  config.first_query = first;
  config.first_key = first - old;
  // A ring loses old tokens to the segment's own: what its queries see of both is put together before.
  const bool ring = config.visibility.kind != AttentionKind::full;
  if (old > 0 && ring) {
    keys = shaped(work.window_keys, {1, H, old + T, d});
    values = shaped(work.window_values, {1, H, old + T, d});
    pass.ops.cache_window(keys, values, cache, sequence, first, at.k, at.v);
  }
  pass.ops.cache_store(cache, sequence, first, at.q, at.k, at.v, at.kappa, at.beta);
  if (old > 0 && !ring) {
    keys = of_sequence(cache.keys, sequence);
    values = of_sequence(cache.values, sequence);
  }
  pass.ops.attention_forward(at.out, at.log_sum_exp, at.q, keys, values, of_sequence(cache.kappa, sequence),
                             of_sequence(cache.beta, sequence), at.chunk_bias, config);
}

}  // namespace flasheva
