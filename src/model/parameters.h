// The named parameters of a model, in the order of its file. Names and shapes are those of Hugging Face.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/tensor.h"
#include "src/config/model_config.h"
#include "src/layers/parameter.h"

namespace flasheva {

// True if the selector (`attention`, `all`, or a glob with * and ? over tensor names) names this tensor.
bool selects(const std::string& selector, const std::string& tensor_name);

// gpt_neox.layers.3.attention.dense.weight -> 3; nothing for embedding, final norm and head.
std::optional<int> layer_of(const std::string& tensor_name);

class ParameterTable : public ParameterSource {
 public:
  explicit ParameterTable(const ModelConfig& config);
  ParameterTable(const ParameterTable&) = delete;
  ParameterTable& operator=(const ParameterTable&) = delete;

  std::deque<Parameter>& all() { return parameters_; }
  const std::deque<Parameter>& all() const { return parameters_; }
  Parameter& at(const std::string& name) override;
  Parameter* find(const std::string& name) override;

  std::int64_t count() const;          // elements
  std::int64_t trained_count() const;  // elements of trained tensors
  std::int64_t largest() const;        // elements of the largest tensor

  // Marks the tensors that any selector names as trained, all others as frozen. Returns the first selector
  // that names no tensor, or "".
  std::string select(const std::vector<std::string>& selectors);

  // Foresees the masters, of type float32 or float64.
  void plan_masters(MemoryPlan& plan, DType dtype);
  // All masters stand in the same memory, of largest() elements: for those who take each value as soon as it
  // is there (MasterFilled in initialize.h).
  void share_master(const Tensor& memory);
  // Foresees copies of another compute type; with the masters' type, none: weights are then the masters.
  void plan_weights(MemoryPlan& plan, DType compute);
  // Foresees the gradients of the trained tensors, one behind the other; those of frozen ones become absent.
  void plan_gradients(MemoryPlan& plan);

  // The gradients of all trained tensors as one, in the order of the table; some elements pad and stay 0.
  // Bound.
  Tensor gradients() const;
  // How many elements it has, bound or not.
  std::int64_t gradient_elements() const;
  // How many of them stand before those of a layer; `layers` stands for final norm and head.
  std::int64_t gradient_elements_before(int layer) const;
  // How many a trained tensor takes of them, those that pad included.
  static std::int64_t gradient_elements_of(const Parameter& parameter);
  // The type of its gradient and moments.
  static DType training_type(const Parameter& parameter);

 private:
  std::deque<Parameter> parameters_;  // a deque: parts of the model keep pointers into it
};

}  // namespace flasheva
