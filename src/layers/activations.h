// The tensors that a transformer block leaves for its backward pass, and those that all blocks share.
//
// B sequences, T tokens, N = B T, D hidden size, I intermediate size, H heads, d head dimension, C chunks.
#pragma once

#include <cstdint>

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "src/config/recompute.h"

namespace flasheva {

// The micro batch at hand; never larger than what was planned.
struct Extent {
  std::int64_t sequences = 0;  // B
  std::int64_t tokens = 0;     // T
  std::int64_t rows() const { return sequences * tokens; }
};

// What a forward or backward pass needs to know beside its tensors.
struct PassContext {
  Ops& ops;
  Extent extent;
  ChunkNoise noise;  // of the step; each layer adds its own number
};

// What a block's backward pass reads of its forward pass. Each block keeps its own, according to Recompute:
//     none       all of them
//     attention  input, norms' statistics, core_out, log_sum_exp, middle, mlp_pre
//     block      input
// What a block does not keep is rebuilt before its backward pass (Block::rebuild), in tensors that all blocks
// share; without a backward pass all of them are shared. An absent norm1_out, norm2_out or mlp_hidden stands
// in the workspace's: the weight that it would give a gradient to is frozen, or it is rebuilt there.
struct BlockActivations {
  Tensor input;                              // (N, D) the residual stream as it enters
  Tensor norm1_mean, norm1_rstd, norm1_out;  // (N) acc, (N) acc, (N, D)
  Tensor q, k, v;                            // (B, H, T, d) after rotary
  Tensor kappa, beta;                        // (B, H, C, d): kind eva
  Tensor core_out, log_sum_exp;              // (N, D), (B, H, T) acc
  Tensor middle;                             // (N, D) input + attention: sequential residual alone
  Tensor norm2_mean, norm2_rstd, norm2_out;  // parallel residual: of the same x, the statistics are norm1's
  Tensor mlp_pre, mlp_hidden;                // (N, I) before and after GELU
};

// Groups of those tensors.
struct ActivationGroups {
  bool input = false;
  bool results = false;   // of products and of attention; the norms' statistics too
  bool operands = false;  // of attention: q, k, v, kappa, beta
  bool factors = false;   // of weight gradients: norm1_out, norm2_out, mlp_hidden
};

constexpr ActivationGroups kept_with(Recompute recompute) {
  return {.input = true,
          .results = recompute != Recompute::block,
          .operands = recompute == Recompute::none,
          .factors = recompute == Recompute::none};
}

// Of those, what blocks that keep `kept` share.
constexpr ActivationGroups shared_beside(const ActivationGroups& kept) {
  return {.input = !kept.input, .results = !kept.results, .operands = !kept.operands, .factors = false};
}

// Gives `saved` the tensors of `shared` that it has not.
inline void share(BlockActivations& saved, const BlockActivations& shared) {
  using B = BlockActivations;
  for (const auto member :
       {&B::input, &B::norm1_mean, &B::norm1_rstd, &B::norm2_mean, &B::norm2_rstd, &B::q, &B::k, &B::v,
        &B::kappa, &B::beta, &B::core_out, &B::log_sum_exp, &B::middle, &B::mlp_pre})
    if (!(saved.*member)) saved.*member = shared.*member;
}

// Shared by all blocks, overwritten by each.
struct Workspace {
  Tensor norm1_out, norm2_out;  // (N, D)
  Tensor qkv;                   // (N, 3D), also its gradient
  Tensor mlp_hidden;            // (N, I), also its gradient
  Tensor branch1, branch2;      // (N, D) outputs of attention and MLP; gradients of the norms' outputs
  Tensor dcore_out;             // (N, D)
  Tensor dq, dk, dv;            // (B, H, T, d)
  Tensor dkappa, dbeta;         // (B, H, C, d)
  // (1, H, O + T, d): keys and values that a segment of a prompt sees, O tokens of before it; generation
  // alone.
  Tensor window_keys, window_values;
};

}  // namespace flasheva
