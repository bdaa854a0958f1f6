// The passes over all chunks of a call, forward and back.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/chunk_scratch.h"
#include "kernels/cuda/chunks.cuh"

namespace flasheva::summary {

// kappa, beta = of every complete chunk. With qkv (B, T, 3D), q, k and v = its rows, turned by cosine and
// sine; otherwise they are there already.
void summarise(cudaStream_t stream, Tensor kappa, Tensor beta, Tensor q, Tensor k, Tensor v, Tensor qkv,
               Tensor cosine, Tensor sine, const EvaParameters& parameters, const Problem& problem,
               const Chunks& chunks);

// The tensors of summarise_backward as Ops::qkv_summary_backward has them.
struct BackwardTensors {
  Tensor dqkv, dq, dk, dv, dkappa, dbeta, q, k, v, cosine, sine;
};
void summarise_backward(cudaStream_t stream, const ParameterRows& rows, const BackwardTensors& tensors,
                        const EvaParameters& parameters, const Problem& problem, const Chunks& chunks,
                        int blocks);

}  // namespace flasheva::summary
