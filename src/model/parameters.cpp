#include "src/model/parameters.h"

#include <fnmatch.h>

#include <algorithm>

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
Shape shape_of(const TensorSpec& spec) {
  return spec.shape.size() == 1 ? Shape{spec.shape[0]} : Shape{spec.shape[0], spec.shape[1]};
}
}  // namespace

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

void ParameterTable::plan_weights(MemoryPlan& plan, DType compute) {
  for (Parameter& parameter : parameters_) {
    parameter.weight = parameter.master;
    if (compute == DType::bf16) plan.add(parameter.weight, "weights, bfloat16", compute, parameter.shape);
  }
}

void ParameterTable::plan_training(MemoryPlan& plan) {
  for (Parameter& parameter : parameters_) {
    parameter.gradient = parameter.first_moment = parameter.second_moment = Tensor{};
    if (!parameter.trained) continue;
    const DType dtype = parameter.master ? parameter.master.dtype : DType::f32;
    plan.add(parameter.gradient, "gradients", dtype, parameter.shape);
    plan.add(parameter.first_moment, "optimizer moments", dtype, parameter.shape);
    plan.add(parameter.second_moment, "optimizer moments", dtype, parameter.shape);
  }
}

}  // namespace flasheva
