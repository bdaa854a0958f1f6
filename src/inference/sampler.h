// The next token, chosen from logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace flasheva {

struct SamplingOptions {
  bool greedy = false;
  double temperature = 1.0;         // > 0
  std::int64_t top_k = 0;           // 0: all
  double top_p = 1.0;               // in (0, 1]
  double repetition_penalty = 1.0;  // > 0; 1: none
  std::uint64_t seed = 0;
};

// Greedy: the largest logit, first of equals. Otherwise a draw from softmax(logits / temperature) over the
// top_k most likely tokens, cut to the smallest set whose probability reaches top_p. The draw depends on
// (seed, sequence, position) alone, not on what else is generated beside it. -1 where a logit is NaN or, in
// a draw, the largest is infinite.
std::int32_t sample(std::span<const float> logits, const SamplingOptions& options, std::uint32_t sequence,
                    std::uint32_t position);

// Keskar et al., "CTRL" (2019): the logits of tokens that occurred are divided by the penalty where positive,
// multiplied where negative. `occurred` names no token twice.
void penalize_repetition(std::span<float> logits, std::span<const std::int32_t> occurred, double penalty);

}  // namespace flasheva
