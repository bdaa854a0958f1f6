#include "src/model/parameters.h"

#include <fnmatch.h>

#include <algorithm>
#include <limits>
#include <string_view>

#include "kernels/check.h"
#include "src/io/model_folder.h"

namespace flasheva {

bool selects(const std::string& selector, const std::string& tensor_name) {
  const char* pattern = selector == "all"         ? "*"
                        : selector == "attention" ? "*.attention.*"
                                                  : selector.c_str();
  return ::fnmatch(pattern, tensor_name.c_str(), 0) == 0;
}

namespace {

constexpr int behind_all_layers = std::numeric_limits<int>::max();

Shape shape_of(const TensorSpec& spec) {
  return spec.shape.size() == 1 ? Shape{spec.shape[0]} : Shape{spec.shape[0], spec.shape[1]};
}

// Its layer; the embedding comes before, final norm and head behind.
int place_of(const std::string& name) {
  if (name.starts_with("gpt_neox.embed_in.")) return -1;
  return layer_of(name).value_or(behind_all_layers - 1);
}

}  // namespace

std::optional<int> layer_of(const std::string& tensor_name) {
  constexpr std::string_view before = "gpt_neox.layers.";
  if (!tensor_name.starts_with(before)) return std::nullopt;
  return std::stoi(tensor_name.substr(before.size()));
}

ParameterTable::ParameterTable(const ModelConfig& config) {
  for (const TensorSpec& spec : tensor_specs(config)) {
    Parameter parameter;
    parameter.name = spec.name;
    parameter.shape = shape_of(spec);
    parameters_.push_back(std::move(parameter));
  }
}

Parameter* ParameterTable::find(const std::string& name) {
  const auto same = [&](const Parameter& parameter) { return parameter.name == name; };
  const auto found = std::find_if(parameters_.begin(), parameters_.end(), same);
  return found == parameters_.end() ? nullptr : &*found;
}

Parameter& ParameterTable::at(const std::string& name) {
  Parameter* found = find(name);
  FLASHEVA_CHECK(found != nullptr);
  return *found;
}

std::int64_t ParameterTable::count() const {
  std::int64_t sum = 0;
  for (const Parameter& parameter : parameters_) sum += parameter.shape.size();
  return sum;
}

std::int64_t ParameterTable::trained_count() const {
  std::int64_t sum = 0;
  for (const Parameter& parameter : parameters_)
    if (parameter.trained) sum += parameter.shape.size();
  return sum;
}

std::int64_t ParameterTable::largest() const {
  std::int64_t most = 0;
  for (const Parameter& parameter : parameters_) most = std::max(most, parameter.shape.size());
  return most;
}

std::string ParameterTable::select(const std::vector<std::string>& selectors) {
  for (Parameter& parameter : parameters_) parameter.trained = false;
  std::string idle;
  for (const std::string& selector : selectors) {
    bool any = false;
    for (Parameter& parameter : parameters_) {
      if (!selects(selector, parameter.name)) continue;
      parameter.trained = any = true;
    }
    if (!any && idle.empty()) idle = selector;
  }
  return idle;
}

void ParameterTable::plan_masters(MemoryPlan& plan, DType dtype) {
  for (Parameter& parameter : parameters_)
    plan.add(parameter.master, std::string("weights, ") + name_of(dtype), dtype, parameter.shape);
}

void ParameterTable::share_master(const Tensor& memory) {
  for (Parameter& parameter : parameters_) parameter.master = shaped(memory, parameter.shape);
}

void ParameterTable::plan_weights(MemoryPlan& plan, DType compute) {
  for (Parameter& parameter : parameters_) {
    parameter.weight = parameter.master;
    if (is_low_precision(compute))
      plan.add(parameter.weight, std::string("weights, ") + name_of(compute), compute, parameter.shape);
  }
}

void ParameterTable::plan_gradients(MemoryPlan& plan) {
  for (Parameter& parameter : parameters_) {
    parameter.gradient = Tensor{};
    if (parameter.trained)
      plan.add(parameter.gradient, "gradients", training_type(parameter), parameter.shape);
  }
}

Tensor ParameterTable::gradients() const {
  for (const Parameter& parameter : parameters_)
    if (parameter.trained)
      return {parameter.gradient.data,
              parameter.gradient.dtype,
              {gradient_elements()},
              parameter.gradient.device};
  return {};
}

std::int64_t ParameterTable::gradient_elements() const { return gradient_elements_before(behind_all_layers); }

std::int64_t ParameterTable::gradient_elements_before(int layer) const {
  std::int64_t sum = 0;
  for (const Parameter& parameter : parameters_)
    if (parameter.trained && place_of(parameter.name) < layer) sum += gradient_elements_of(parameter);
  return sum;
}

std::int64_t ParameterTable::gradient_elements_of(const Parameter& parameter) {
  const auto line =
      static_cast<std::int64_t>(MemoryPlan::alignment_bytes / size_in_bytes(training_type(parameter)));
  return (parameter.shape.size() + line - 1) / line * line;
}

DType ParameterTable::training_type(const Parameter& parameter) {
  return parameter.master ? parameter.master.dtype : DType::f32;
}

}  // namespace flasheva
