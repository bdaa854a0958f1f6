#include "src/commands/figures.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/core/file.h"

namespace flasheva {

void print_figures(const nlohmann::ordered_json& figures, const std::string& json_path) {
  for (const auto& [key, value] : figures.items()) {
    if (value.is_array()) continue;
    fmt::print("{:<28} {}\n", key,
               value.is_number_float() ? fmt::format("{:.6g}", value.get<double>()) : value.dump());
  }
  if (!json_path.empty()) write_file_atomically(json_path, figures.dump(1) + "\n");
}

void print_by_layer(const std::string& name, const nlohmann::ordered_json& values) {
  for (std::size_t layer = 0; layer < values.size(); ++layer)
    if (values[layer].is_number())
      fmt::print("{:<28} {:.6g}\n", fmt::format("{}, layer {}", name, layer), values[layer].get<double>());
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace flasheva
