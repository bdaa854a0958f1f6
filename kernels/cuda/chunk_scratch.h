// The scratch memory of the backward pass of chunk summaries, as scratch_layouts.h has it of the others. What
// a parameter's gradient sums up over all chunks is cut into shares, which are added up in order.
#pragma once

#include <algorithm>

#include "kernels/chunk_summary_contract.h"
#include "kernels/cuda/divide_up.h"
#include "kernels/cuda/scratch_pieces.h"

namespace flasheva::summary {

// Shares of `count` rows: few where each has sums of a whole weight.
inline int weight_shares(std::int64_t count) {
  return static_cast<int>(std::min<std::int64_t>(divide_up(count, 128), 64));
}
inline int head_shares(std::int64_t count) {
  return static_cast<int>(std::min<std::int64_t>(divide_up(count, 16), 256));
}

inline constexpr int adapter_warps = 4;  // of a block; a warp takes a chunk or more

// Blocks of the backward pass, each with column sums of its own. The tokens that fill no chunk count as one.
inline int backward_blocks(const Problem& problem, int multiprocessors) {
  constexpr int blocks_a_multiprocessor = 8;
  const std::int64_t chunks = problem.B * problem.H * divide_up(problem.T, problem.P);
  return static_cast<int>(
      std::min<std::int64_t>(divide_up(chunks, adapter_warps), blocks_a_multiprocessor * multiprocessors));
}

// What the gradients of the parameters are made of. Rows of chunks, (B H C, d) accumulators, absent where the
// variant does not need them.
struct ParameterRows {
  Tensor dz[2], in[2];    // of the keys' adapter and the queries': the gradient of W in + b, and in
  Tensor column_sums[2];  // (blocks, 3, d): shares of the gradients of bias, norm_weight and norm_bias
  Tensor dmu, dphi;       // of every chunk alone
};

// Which adapters' weights have gradients: the keys', the queries'.
struct TrainedWeights {
  bool of[2];
};

struct BackwardScratch : ParameterRows {
  Tensor weights[2];  // (shares, d, d): sums for the gradients of the adapters' weights
  Tensor mu, phi;     // (shares, H, d): sums for their gradients

  BackwardScratch(ScratchPieces& pieces, DType acc, const Problem& problem, const TrainedWeights& trained,
                  int blocks) {
    const auto [B, H, T, C, P, d, config] = problem;
    for (int which = 0; problem.adapted() && which < (problem.uses_queries() ? 2 : 1); ++which) {
      column_sums[which] = pieces.take(acc, {blocks, 3, d});
      if (!trained.of[which]) continue;
      for (Tensor* x : {&dz[which], &in[which]}) *x = pieces.take(acc, {B * H * C, d});
      weights[which] = pieces.take(acc, {weight_shares(B * H * C), d, d});
    }
    if (!problem.learned()) return;
    for (Tensor* x : {&dmu, &dphi}) *x = pieces.take(acc, {B, H, C, d});
    for (Tensor* x : {&mu, &phi}) *x = pieces.take(acc, {head_shares(B * C), H, d});
  }
};

}  // namespace flasheva::summary
