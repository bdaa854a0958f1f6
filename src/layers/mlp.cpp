#include "src/layers/mlp.h"

namespace flasheva {

void Mlp::forward(const PassContext& pass, Tensor out, Tensor x, const BlockActivations& saved,
                  const Workspace& work) const {
  const std::int64_t rows = pass.extent.rows();
  const Tensor pre = saved.mlp_pre.rows(0, rows);
  const Tensor hidden = (saved.mlp_hidden ? saved.mlp_hidden : work.mlp_hidden).rows(0, rows);
  up_.forward(pass.ops, pre, x);
  pass.ops.gelu_forward(hidden, pre);
  down_.forward(pass.ops, out, hidden);
}

void Mlp::backward(const PassContext& pass, Tensor dx, Tensor dout, Tensor x, const BlockActivations& saved,
                   const Workspace& work) const {
  const std::int64_t rows = pass.extent.rows();
  const Tensor dhidden = work.mlp_hidden.rows(0, rows);
  const Tensor hidden = saved.mlp_hidden ? saved.mlp_hidden.rows(0, rows) : Tensor{};
  const bool go_on = dx || up_.trained();
  down_.backward(pass.ops, go_on ? dhidden : Tensor{}, dout, hidden);
  if (!go_on) return;
  pass.ops.gelu_backward(dhidden, up_.bias_gradient(), dhidden, saved.mlp_pre.rows(0, rows));
  up_.backward_product(pass.ops, dx, dhidden, x);
}

}  // namespace flasheva
