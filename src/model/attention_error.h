// How far each layer's attention is from exact softmax attention over the same queries, keys and values:
//
//     error_l = ||o_l - o_full|| / ||o_full||,   o_full = causal softmax(q k^T / sqrt(d)) v
//
// with norms over all tokens, heads and batches. It is what a layer loses by the swap, before later layers
// make it up or worse.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "src/config/model_config.h"
#include "src/layers/activations.h"

namespace flasheva {

class AttentionErrors {
 public:
  // `config` must outlive it.
  explicit AttentionErrors(const ModelConfig& config) : config_(config), sums_(2 * config.attention.size()) {}

  // Adds a layer whose forward pass has just left q, k, v and core_out in `saved`. Overwrites
  // saved.log_sum_exp and work.branch1. Layers of full attention cost nothing.
  void add(const PassContext& pass, std::size_t layer, const BlockActivations& saved, const Workspace& work);

  // Squared norms, two a layer: to be summed over ranks.
  std::span<double> sums() { return sums_; }

  // One error a layer; NaN (null in JSON) for a layer of full attention.
  std::vector<double> relative() const;

 private:
  bool is_full(std::size_t layer) const { return config_.attention[layer].kind == AttentionKind::full; }

  const ModelConfig& config_;
  std::vector<double> sums_;  // by layer: ||o - o_full||^2, ||o_full||^2
};

}  // namespace flasheva
