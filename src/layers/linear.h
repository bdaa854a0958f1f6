// out (N, O) = x (N, I) weight (O, I)^T + bias (O), with the parameters it owns by name.
#pragma once

#include <string>

#include "src/layers/activations.h"
#include "src/layers/parameter.h"

namespace flasheva {

class Linear {
 public:
  // Parameters `name`.weight and, where the model has it, `name`.bias.
  Linear(ParameterSource& parameters, const std::string& name)
      : weight_(&parameters.at(name + ".weight")), bias_(parameters.find(name + ".bias")) {}

  bool trained() const { return weight_->trained || (bias_ != nullptr && bias_->trained); }
  bool weight_trained() const { return weight_->trained; }

  void forward(Ops& ops, Tensor out, Tensor x) const {
    ops.linear_forward(out, x, weight_->weight, bias_ == nullptr ? Tensor{} : bias_->weight);
  }
  // dx (N, I) =, optional; may be x. x is not read where the weight is frozen.
  void backward(Ops& ops, Tensor dx, Tensor dout, Tensor x) const {
    backward(ops, dx, bias_gradient(), dout, x);
  }
  // The same where the bias has its gradient from the operation that gave dout.
  void backward_product(Ops& ops, Tensor dx, Tensor dout, Tensor x) const { backward(ops, dx, {}, dout, x); }
  // (O), absent without a trained bias.
  Tensor bias_gradient() const { return bias_ == nullptr ? Tensor{} : bias_->gradient; }

 private:
  void backward(Ops& ops, Tensor dx, Tensor dbias, Tensor dout, Tensor x) const {
    if (weight_->trained || dbias) ops.linear_backward_weight(weight_->gradient, dbias, dout, x);
    if (dx) ops.linear_backward_input(dx, dout, weight_->weight);
  }

  Parameter* weight_;
  Parameter* bias_;
};

}  // namespace flasheva
