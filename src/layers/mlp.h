// mlp(x) = W2 gelu(W1 x + b1) + b2.
#pragma once

#include "src/config/model_config.h"
#include "src/layers/linear.h"

namespace flasheva {

class Mlp {
 public:
  Mlp(ParameterSource& parameters, const std::string& layer_name)
      : up_(parameters, layer_name + ".mlp.dense_h_to_4h"),
        down_(parameters, layer_name + ".mlp.dense_4h_to_h") {}

  bool trained() const { return up_.trained() || down_.trained(); }
  bool needs_input() const { return up_.weight_trained(); }
  bool needs_hidden() const { return down_.weight_trained(); }

  // out (N, D) = mlp(x (N, D)).
  void forward(const PassContext& pass, Tensor out, Tensor x, const BlockActivations& saved,
               const Workspace& work) const;
  // Its first two steps: saved.mlp_pre = from x; the hidden layer = from that.
  void project_up(const PassContext& pass, Tensor x, const BlockActivations& saved) const;
  void activate(const PassContext& pass, const BlockActivations& saved, const Workspace& work) const;
  // dx (N, D) =, optional. x and the hidden layer are not read where the weight they meet is frozen.
  void backward(const PassContext& pass, Tensor dx, Tensor dout, Tensor x, const BlockActivations& saved,
                const Workspace& work) const;

 private:
  Linear up_, down_;
};

}  // namespace flasheva
