#include "src/training/flops.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace flasheva {

namespace {

bool is_matrix(const std::string& name) {
  constexpr std::array<std::string_view, 5> ends = {"attention.query_key_value.weight",
                                                    "attention.dense.weight", "mlp.dense_h_to_4h.weight",
                                                    "mlp.dense_4h_to_h.weight", "embed_out.weight"};
  return std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return name.ends_with(end); });
}

}  // namespace

std::int64_t visible_pairs(const Visibility& visibility, std::int64_t tokens) {
  std::int64_t pairs = 0;
  for (std::int64_t n = 0; n < tokens; ++n)
    pairs += n - visibility.first_token(n) + 1 + visibility.visible_chunks(n);
  return pairs;
}

double step_flops(const ModelConfig& config, const ParameterTable& parameters, std::int64_t sequences,
                  std::int64_t tokens) {
  double matrices = 0, trained = 0;
  for (const Parameter& parameter : parameters.all()) {
    if (!is_matrix(parameter.name)) continue;
    matrices += static_cast<double>(parameter.shape.size());
    if (parameter.trained) trained += static_cast<double>(parameter.shape.size());
  }
  double pairs = 0;
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    pairs += static_cast<double>(visible_pairs(config.visibility(layer), tokens));
  const auto all_tokens = static_cast<double>(sequences * tokens);
  return all_tokens * (4 * matrices + 2 * trained) +
         static_cast<double>(sequences) * 3.5 * 4 * static_cast<double>(config.hidden_size) * pairs;
}

}  // namespace flasheva
