// The tensors that a transformer block leaves for its backward pass, and those that all blocks share.
//
// B sequences, T tokens, N = B T, D hidden size, I intermediate size, H heads, d head dimension, C chunks.
#pragma once

#include <cstdint>

#include "kernels/buffer.h"
#include "kernels/ops.h"

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

// Kept from a block's forward to its backward. An absent tensor is not needed there (the weight it would give
// a gradient to is frozen); the forward pass then uses the workspace's instead.
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
