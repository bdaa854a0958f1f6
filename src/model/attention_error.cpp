#include "src/model/attention_error.h"

#include <cmath>
#include <limits>

namespace flasheva {

void AttentionErrors::add(const PassContext& pass, std::size_t layer, const BlockActivations& saved,
                          const Workspace& work) {
  if (is_full(layer)) return;
  const auto [B, T] = pass.extent;
  const std::int64_t H = config_.num_attention_heads, d = config_.head_dim();
  const Shape per_head{B, H, T, d}, merged{B, T, H * d};
  const Tensor exact = shaped(work.branch1, merged);
  pass.ops.attention_forward(exact, shaped(saved.log_sum_exp, {B, H, T}), shaped(saved.q, per_head),
                             shaped(saved.k, per_head), shaped(saved.v, per_head), {}, {}, {}, {});
  sums_[2 * layer] += pass.ops.squared_distance(shaped(saved.core_out, merged), exact);
  sums_[2 * layer + 1] += pass.ops.sum_of_squares(exact);
}

std::vector<double> AttentionErrors::relative() const {
  std::vector<double> errors(config_.attention.size(), std::numeric_limits<double>::quiet_NaN());
  for (std::size_t layer = 0; layer < errors.size(); ++layer)
    if (!is_full(layer)) errors[layer] = std::sqrt(sums_[2 * layer] / sums_[2 * layer + 1]);
  return errors;
}

}  // namespace flasheva
