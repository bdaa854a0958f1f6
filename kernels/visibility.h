// Which tokens and chunks a query sees: design of causal FlashEVA attention.
//
//     block window:    a(n) = W * floor(n / W)
//     sliding window:  a(n) = P * floor(max(0, n - W + 1) / P)      (W..W+P-1 exact tokens, chunk-aligned)
//     exact tokens     { a(n) .. n }
//     visible chunks   { c : (c+1) P <= a(n) }                      outside_window
//                      { c : (c+1) P <= P floor(n/P) }              all_past
//
// The kind `full` sees every past token and no chunk; the kind `sliding` sees tokens max(0, n-W+1) .. n and
// no chunk. first_token and visible_chunks never decrease with n, which the blocked kernels rely on.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/host_device.h"

namespace flasheva {

enum class AttentionKind : std::uint8_t { full, sliding, eva };
enum class WindowKind : std::uint8_t { block, sliding };
enum class ChunkVisibility : std::uint8_t { outside_window, all_past };

struct Visibility {
  AttentionKind kind = AttentionKind::full;
  WindowKind window_kind = WindowKind::block;
  ChunkVisibility chunk_visibility = ChunkVisibility::outside_window;
  std::int64_t window = 0;  // W, tokens; unused by full
  std::int64_t chunk = 0;   // P, tokens; used by eva alone

  // a(n): the first token that query n attends to exactly; the last is n itself.
  FLASHEVA_HOST_DEVICE std::int64_t first_token(std::int64_t n) const {
    if (kind == AttentionKind::full) return 0;
    const std::int64_t oldest = n < window ? 0 : n - window + 1;
    if (kind == AttentionKind::sliding) return oldest;
    return window_kind == WindowKind::block ? n / window * window : oldest / chunk * chunk;
  }

  // Query n sees the summaries of chunks 0 .. visible_chunks(n) - 1.
  FLASHEVA_HOST_DEVICE std::int64_t visible_chunks(std::int64_t n) const {
    if (kind != AttentionKind::eva) return 0;
    return (chunk_visibility == ChunkVisibility::outside_window ? first_token(n) : n) / chunk;
  }

  // The last query that sees token m exactly, among all that may come; INT64_MAX with kind full.
  FLASHEVA_HOST_DEVICE std::int64_t last_query_of_token(std::int64_t m) const {
    if (kind == AttentionKind::full) return INT64_MAX;
    if (kind == AttentionKind::sliding) return m + window - 1;
    return window_kind == WindowKind::block ? (m / window + 1) * window - 1
                                            : (m / chunk + 1) * chunk + window - 2;
  }

  // The first query that sees the summary of chunk c; all after it do.
  FLASHEVA_HOST_DEVICE std::int64_t first_query_of_chunk(std::int64_t c) const {
    const std::int64_t end = (c + 1) * chunk;
    if (chunk_visibility == ChunkVisibility::all_past) return end;
    return window_kind == WindowKind::block ? (end + window - 1) / window * window : end + window - 1;
  }

  // Rows that a cache of `tokens` tokens at most needs so that every query finds what it sees exactly, token
  // m in row m mod rows: whole chunks where there are chunks, so that none is cut by the end of the rows.
  std::int64_t cache_rows(std::int64_t tokens) const {
    if (kind == AttentionKind::full) return tokens;
    if (kind == AttentionKind::sliding) return std::min(window, tokens);
    const std::int64_t whole = (tokens + chunk - 1) / chunk * chunk;
    return std::min(window_kind == WindowKind::block ? window : window + chunk, whole);
  }

  // Complete chunks of a sequence of `tokens`; an incomplete last one is never summarised.
  std::int64_t chunks(std::int64_t tokens) const { return kind == AttentionKind::eva ? tokens / chunk : 0; }
};

}  // namespace flasheva
