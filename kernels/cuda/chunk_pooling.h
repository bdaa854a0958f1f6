// What is done over the P tokens of every chunk, one warp a chunk. Rows of scratch, one a chunk in their
// order, are accumulators.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/chunks.cuh"

namespace flasheva::summary {

// kbar (count, d) = means of the chunks' keys or, with mu (H, d), their sums weighted by softmax_m(mu . k_m);
// qbar, optional, = means of the queries.
void pool_keys(cudaStream_t stream, Tensor kbar, Tensor qbar, Tensor q, Tensor k, Tensor mu,
               const Chunks& chunks);
// beta = sum of p_m v_m, p = softmax of s (omega . k_m - |k_m|^2 / 2), omega (count, d).
void pool_values(cudaStream_t stream, Tensor beta, Tensor omega, Tensor k, Tensor v, const Chunks& chunks);

// dv +=; dlogits (count, P), the gradient of omega . k_m, and domega (count, d) =.
void pool_values_backward(cudaStream_t stream, Tensor dv, Tensor dlogits, Tensor domega, Tensor dbeta,
                          Tensor omega, Tensor k, Tensor v, const Chunks& chunks);
// dk +=, from dlogits and dkbar (count, d); dq +=, from dqbar, optional. With mu, dmu (count, d) = every
// chunk's share of its gradient.
void pool_keys_backward(cudaStream_t stream, Tensor dq, Tensor dk, Tensor dmu, Tensor dkbar, Tensor dqbar,
                        Tensor dlogits, Tensor omega, Tensor k, Tensor mu, const Chunks& chunks);

}  // namespace flasheva::summary
