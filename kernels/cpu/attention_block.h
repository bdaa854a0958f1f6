// The parts of blocked attention that forward and backward share: which keys the queries of a block see, and
// masks.
//
// Keys and values come from two sources, tokens 0 .. S-1 and chunks 0 .. C-1. Queries are taken `query_block`
// at a time, keys of a source `key_block` at a time. Logits stand transposed, S (keys x queries):
// a panel of queries fills two vectors, so that the softmax over keys never sums across the lanes of a
// vector.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention_contract.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/padded_rows.h"
#include "kernels/cpu/simd.h"
#include "kernels/ops.h"

namespace flasheva::cpu_attention {

using namespace padded;

inline constexpr std::int64_t query_block = 128;
inline constexpr std::int64_t key_block = 64;
static_assert(query_block % panel<float> == 0 && query_block % panel<double> == 0);

using Sizes = AttentionSizes;

// --- what a block of queries sees ----------------------------------------------------------------------

// Query i of the block sees keys first[i] .. end[i] - 1 of a source; neither decreases with i. Queries
// that pad the block to whole panels see nothing.
template <class R>
struct Seen {
  using Index = std::remove_reference_t<decltype(simd::Mask<R>{}[0])>;
  Index first[query_block], end[query_block];

  // The keys that some query of the panel at p sees, from an even one on, where pairs of keys begin.
  std::int64_t panel_first(std::int64_t p) const { return first[p] / 2 * 2; }
  std::int64_t panel_end(std::int64_t p) const { return end[p + panel<R> - 1]; }
};

struct QueryBlock {
  std::int64_t begin;   // the first query
  std::int64_t count;   // how many
  std::int64_t padded;  // in whole panels
};

template <class R>
QueryBlock query_block_at(std::int64_t begin, std::int64_t tokens) {
  const std::int64_t count = std::min(query_block, tokens - begin);
  return {begin, count, round_up(count, panel<R>)};
}

template <class R>
void pad(Seen<R>& seen, const QueryBlock& block) {
  for (std::int64_t i = block.count; i < block.padded; ++i)
    seen.first[i] = seen.end[i] = std::max(seen.end[block.count - 1], seen.first[block.count - 1]);
}

template <class R>
Seen<R> seen_tokens(const AttentionConfig& config, const QueryBlock& block) {
  using Index = typename Seen<R>::Index;
  Seen<R> seen;
  for (std::int64_t i = 0; i < block.count; ++i) {
    const std::int64_t position = config.first_query + block.begin + i;
    seen.first[i] = static_cast<Index>(config.visibility.first_token(position) - config.first_key);
    seen.end[i] = static_cast<Index>(position + 1 - config.first_key);
  }
  pad(seen, block);
  return seen;
}

template <class R>
Seen<R> seen_chunks(const AttentionConfig& config, const QueryBlock& block) {
  using Index = typename Seen<R>::Index;
  Seen<R> seen;
  for (std::int64_t i = 0; i < block.count; ++i) {
    seen.first[i] = 0;
    seen.end[i] = static_cast<Index>(config.visibility.visible_chunks(config.first_query + block.begin + i));
  }
  pad(seen, block);
  return seen;
}

// Some keys of a key block: those that a panel of queries sees a part of.
struct KeyRange {
  std::int64_t begin, end;

  bool empty() const { return begin >= end; }
  std::int64_t count() const { return end - begin; }
};

template <class R>
KeyRange keys_of_panel(const Seen<R>& seen, std::int64_t p, std::int64_t begin, std::int64_t end) {
  return {std::max(begin, seen.panel_first(p)), std::min(end, seen.panel_end(p))};
}

// s (keys x panel, rows s_row apart) = -inf where a query of the panel at p does not see the key.
template <class R>
void mask(R* s, std::int64_t s_row, const Seen<R>& seen, std::int64_t p, KeyRange keys) {
  constexpr int lanes = simd::lanes<R>;
  const auto mask_keys = [&](std::int64_t begin, std::int64_t end) {
    for (int v = 0; v < panel<R>; v += lanes) {
      simd::Mask<R> first, last;
      std::memcpy(&first, seen.first + p + v, sizeof(first));
      std::memcpy(&last, seen.end + p + v, sizeof(last));
      const auto hidden = simd::broadcast(-std::numeric_limits<R>::infinity());
      for (std::int64_t j = begin; j < end; ++j) {
        R* x = s + (j - keys.begin) * s_row + v;
        const auto key = static_cast<typename Seen<R>::Index>(j);
        simd::store(x, simd::select((first <= key) & (last > key), simd::load(x), hidden));
      }
    }
  };
  // Keys from first of the last query to end of the first are seen by all.
  const std::int64_t common_begin =
      std::clamp<std::int64_t>(seen.first[p + panel<R> - 1], keys.begin, keys.end);
  const std::int64_t common_end = std::clamp<std::int64_t>(seen.end[p], common_begin, keys.end);
  mask_keys(keys.begin, common_begin);
  mask_keys(common_end, keys.end);
}

}  // namespace flasheva::cpu_attention
