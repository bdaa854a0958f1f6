// LayerNorm over the hidden dimension, with the parameters it owns by name.
#pragma once

#include <string>

#include "src/layers/activations.h"
#include "src/layers/parameter.h"

namespace flasheva {

class LayerNorm {
 public:
  LayerNorm(ParameterSource& parameters, const std::string& name, double eps)
      : weight_(&parameters.at(name + ".weight")), bias_(&parameters.at(name + ".bias")), eps_(eps) {}

  bool trained() const { return weight_->trained || bias_->trained; }

  // out (N, D), mean and rstd (N) =.
  void forward(Ops& ops, Tensor out, Tensor mean, Tensor rstd, Tensor x) const {
    ops.layernorm_forward(output(out), {}, mean, rstd, x, eps_);
  }
  // dx (N, D) +=, optional.
  void backward(Ops& ops, Tensor dx, Tensor dout, Tensor x, Tensor mean, Tensor rstd) const {
    if (dx || trained()) ops.layernorm_backward(dx, gradients(dout), {}, x, mean, rstd);
  }

  // This norm's part of an operation on two norms of the same x.
  Norm output(Tensor out) const { return {out, weight_->weight, bias_->weight}; }
  NormGradients gradients(Tensor dout) const {
    return {weight_->gradient, bias_->gradient, dout, weight_->weight};
  }

 private:
  Parameter* weight_;
  Parameter* bias_;
  double eps_;
};

}  // namespace flasheva
