// The variants of attention that its tests run through.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kernels/ops.h"

namespace flasheva {

inline Visibility full() { return {}; }
inline Visibility sliding(std::int64_t window) { return {.kind = AttentionKind::sliding, .window = window}; }
inline Visibility eva(std::int64_t window, std::int64_t chunk, WindowKind window_kind = WindowKind::block,
                      ChunkVisibility chunk_visibility = ChunkVisibility::outside_window) {
  return {AttentionKind::eva, window_kind, chunk_visibility, window, chunk};
}

// Every kind and variant, with windows that divide nothing, P = W, P = 1 and windows longer than any sequence
// here.
inline std::vector<AttentionConfig> all_configs() {
  std::vector<AttentionConfig> configs{{full()}, {sliding(1)}, {sliding(5)}, {sliding(16)}, {sliding(100)}};
  const std::pair<std::int64_t, std::int64_t> geometries[] = {{4, 2}, {7, 7},   {12, 3}, {16, 8},
                                                              {5, 1}, {40, 20}, {128, 4}};
  for (const auto& [window, chunk] : geometries)
    for (WindowKind window_kind : {WindowKind::block, WindowKind::sliding})
      for (ChunkVisibility visible : {ChunkVisibility::outside_window, ChunkVisibility::all_past})
        for (ChunkBias bias : {ChunkBias::none, ChunkBias::log_chunk, ChunkBias::learned})
          configs.push_back({eva(window, chunk, window_kind, visible), bias});
  return configs;
}

// One configuration of each kind, for what need not be seen in every variant.
inline std::vector<AttentionConfig> typical_configs(std::int64_t window, std::int64_t chunk) {
  return {{full()},
          {sliding(window + 3)},
          {eva(window, chunk), ChunkBias::learned},
          {eva(window, chunk, WindowKind::block, ChunkVisibility::all_past), ChunkBias::none},
          {eva(window, chunk, WindowKind::sliding), ChunkBias::log_chunk}};
}

inline std::string describe(const AttentionConfig& config) {
  const Visibility& v = config.visibility;
  return "W " + std::to_string(v.window) + " P " + std::to_string(v.chunk) + " kind " +
         std::to_string(static_cast<int>(v.kind)) +
         (v.window_kind == WindowKind::block ? " block" : " sliding") +
         (v.chunk_visibility == ChunkVisibility::all_past ? " all_past" : " outside_window") + " bias " +
         std::to_string(static_cast<int>(config.chunk_bias));
}

}  // namespace flasheva
