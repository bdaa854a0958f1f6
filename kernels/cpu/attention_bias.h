// The bias of chunks among the logits of attention, which stand in units of log2.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#include "kernels/cpu/loops.h"
#include "kernels/ops.h"

namespace flasheva::cpu_attention {

template <class R>
inline constexpr R log2_e = std::numbers::log2e_v<R>;

// What is added to the logits of head h's chunks, in units of log2.
template <class T, class R = Accumulator<T>>
inline R chunk_bias_of(std::int64_t h, Tensor chunk_bias, const AttentionConfig& config) {
  switch (config.chunk_bias) {
    case ChunkBias::none:
      return 0;
    case ChunkBias::log_chunk:
      return std::log2(static_cast<R>(config.visibility.chunk));
    case ChunkBias::learned:
      return static_cast<R>(chunk_bias.as<T>()[h]) * log2_e<R>;
  }
  return 0;
}

}  // namespace flasheva::cpu_attention
