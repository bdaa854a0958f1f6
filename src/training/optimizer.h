// Clipping by the global gradient norm and AdamW over the trained parameters of a model.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "src/config/config.h"
#include "src/model/parameters.h"

namespace flasheva {

// The gradient's norm over all trained parameters, and by part of the model ("layers.3", "embed_in", ...).
struct GradientNorms {
  double global = 0;
  std::map<std::string, double> by_part;
  std::string first_non_finite;  // the first tensor with a gradient that is not finite; "" if none
};
GradientNorms gradient_norms(Ops& ops, const ParameterTable& parameters);

// gradients x min(1, clip / (norm + 1e-6)) enter AdamW; clip 0: off. `step` counts this phase's updates
// from 1. Weight decay on tensors of two or more dimensions only. Refreshes the bfloat16 copies where there
// are any.
void update_parameters(Ops& ops, ParameterTable& parameters, const OptimizerConfig& config, double lr,
                       std::int64_t step, double gradient_norm);

}  // namespace flasheva
