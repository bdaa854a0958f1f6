// Model FLOPs of a training step: the work that the mathematics asks for, whatever a kernel does.
//
//     tokens x (4 x matrix parameters + 2 x the trained ones of them)
//     + layers x 3.5 x 4 D x (exact tokens + visible chunks, summed over all queries)
//
// Matrix parameters: query_key_value, dense, both MLP matrices, embed_out. 3.5: forward 1, backward 2.5 with
// the recomputed logits. What batch.recompute computes a second time does not count.
#pragma once

#include <cstdint>

#include "src/config/model_config.h"
#include "src/model/parameters.h"

namespace flasheva {

// Exact tokens and visible chunks summed over the T queries of one sequence.
std::int64_t visible_pairs(const Visibility& visibility, std::int64_t tokens);

// Of one optimizer step over `sequences` sequences of `tokens`; `parameters` knows which tensors are trained.
double step_flops(const ModelConfig& config, const ParameterTable& parameters, std::int64_t sequences,
                  std::int64_t tokens);

}  // namespace flasheva
