#include "src/layers/mlp.h"

namespace flasheva {

namespace {
Tensor hidden_of(const PassContext& pass, const BlockActivations& saved, const Workspace& work) {
  return (saved.mlp_hidden ? saved.mlp_hidden : work.mlp_hidden).rows(0, pass.extent.rows());
}
}  // namespace

void Mlp::forward(const PassContext& pass, Tensor out, Tensor x, const BlockActivations& saved,
                  const Workspace& work) const {
  project_up(pass, x, saved);
  activate(pass, saved, work);
  down_.forward(pass.ops, out, hidden_of(pass, saved, work));
}

void Mlp::project_up(const PassContext& pass, Tensor x, const BlockActivations& saved) const {
  up_.forward(pass.ops, saved.mlp_pre.rows(0, pass.extent.rows()), x);
}

void Mlp::activate(const PassContext& pass, const BlockActivations& saved, const Workspace& work) const {
  pass.ops.gelu_forward(hidden_of(pass, saved, work), saved.mlp_pre.rows(0, pass.extent.rows()));
}

void Mlp::backward(const PassContext& pass, Tensor dx, Tensor dout, Tensor x, const BlockActivations& saved,
                   const Workspace& work) const {
  const std::int64_t rows = pass.extent.rows();
  const Tensor dhidden = work.mlp_hidden.rows(0, rows);
  const bool go_on = dx || up_.trained();
  // dhidden may overwrite the hidden layer.
  down_.backward(pass.ops, go_on ? dhidden : Tensor{}, dout, hidden_of(pass, saved, work));
  if (!go_on) return;
  pass.ops.gelu_backward(dhidden, up_.bias_gradient(), dhidden, saved.mlp_pre.rows(0, rows));
  up_.backward_product(pass.ops, dx, dhidden, x);
}

}  // namespace flasheva
