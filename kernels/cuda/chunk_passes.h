// The passes over all chunks of a call, forward and back.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/chunks.cuh"

namespace flasheva::summary {

// kappa, beta = of every complete chunk. With qkv (B, T, 3D), q, k and v = its rows, turned by cosine and
// sine; otherwise they are there already.
void summarise(cudaStream_t stream, Tensor kappa, Tensor beta, Tensor q, Tensor k, Tensor v, Tensor qkv,
               Tensor cosine, Tensor sine, const EvaParameters& parameters, const Problem& problem,
               const Chunks& chunks);

// What the gradients of the parameters are made of. Rows of chunks, (B H C, d) accumulators, absent where the
// variant does not need them.
struct ParameterRows {
  Tensor dz[2], in[2];    // of the keys' adapter and the queries': the gradient of W in + b, and in
  Tensor column_sums[2];  // (blocks, 3, d): shares of the gradients of bias, norm_weight and norm_bias
  Tensor dmu, dphi;       // of every chunk alone
};

// Blocks of summarise_backward, each with column sums of its own.
int backward_blocks(const Chunks& chunks, int multiprocessors);

// The tensors of summarise_backward as Ops::qkv_summary_backward has them.
struct BackwardTensors {
  Tensor dqkv, dq, dk, dv, dkappa, dbeta, q, k, v, cosine, sine;
};
void summarise_backward(cudaStream_t stream, const ParameterRows& rows, const BackwardTensors& tensors,
                        const EvaParameters& parameters, const Problem& problem, const Chunks& chunks,
                        int blocks);

}  // namespace flasheva::summary
