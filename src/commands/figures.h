// How commands print figures: a line each, and the same as a JSON file where asked.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace flasheva {

// One line a figure on standard output, arrays left out; with a `json_path`, the object goes to that file
// too.
void print_figures(const nlohmann::ordered_json& figures, const std::string& json_path);

// One line for every layer that has a value; null for those that have none.
void print_by_layer(const std::string& name, const nlohmann::ordered_json& values);

double median(std::vector<double> values);

}  // namespace flasheva
