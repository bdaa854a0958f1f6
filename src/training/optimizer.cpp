#include "src/training/optimizer.h"

#include <algorithm>
#include <cmath>

namespace flasheva {

namespace {
// gpt_neox.layers.3.attention.dense.weight -> layers.3; gpt_neox.embed_in.weight -> embed_in.
std::string part_of(const std::string& name) {
  std::string rest = name.rfind("gpt_neox.", 0) == 0 ? name.substr(9) : name;
  const std::size_t dots = rest.rfind("layers.", 0) == 0 ? rest.find('.', 7) : rest.find('.');
  return rest.substr(0, dots);
}
}  // namespace

GradientNorms gradient_norms(Ops& ops, const ParameterTable& parameters) {
  GradientNorms norms;
  double total = 0;
  for (const Parameter& parameter : parameters.all()) {
    if (!parameter.trained) continue;
    const double squares = ops.sum_of_squares(parameter.gradient);
    if (!std::isfinite(squares) && norms.first_non_finite.empty()) norms.first_non_finite = parameter.name;
    norms.by_part[part_of(parameter.name)] += squares;
    total += squares;
  }
  norms.global = std::sqrt(total);
  for (auto& [part, squares] : norms.by_part) squares = std::sqrt(squares);
  return norms;
}

void update_parameters(Ops& ops, ParameterTable& parameters, const OptimizerConfig& config, double lr,
                       std::int64_t step, double gradient_norm) {
  AdamWConfig adamw;
  adamw.lr = lr;
  adamw.beta1 = config.beta1;
  adamw.beta2 = config.beta2;
  adamw.eps = config.eps;
  adamw.step = step;
  if (config.clip > 0) adamw.gradient_scale = std::min(1.0, config.clip / (gradient_norm + 1e-6));
  for (Parameter& parameter : parameters.all()) {
    if (!parameter.trained) continue;
    const bool decays = parameter.shape.rank() >= 2;
    adamw.weight_decay = decays ? config.weight_decay : 0.0;
    const bool copied = parameter.weight.data != parameter.master.data;
    ops.adamw(parameter.master, copied ? parameter.weight : Tensor{}, parameter.first_moment,
              parameter.second_moment, parameter.gradient, adamw);
  }
}

}  // namespace flasheva
