// What is done to the rows of chunk means: from kbar, qbar to kappa and omega, and back. Rows of scratch, one
// a chunk in their order, are accumulators (count, d).
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/chunks.cuh"

namespace flasheva::summary {

// The tensors of one adapter: its parameters, or their gradients; absent where the variant has none. Without
// weight A is the identity.
struct AdapterTensors {
  Tensor weight, bias, norm_weight, norm_bias;
};

inline AdapterTensors of_variant(const Problem& problem, AdapterTensors all) {
  if (!problem.adapted()) return {};
  if (!problem.layernorm()) all.norm_weight = all.norm_bias = {};
  return all;
}
inline AdapterTensors key_adapter(const Problem& problem, const EvaParameters& p) {
  return of_variant(problem, {p.key_weight, p.key_bias, p.key_norm_weight, p.key_norm_bias});
}
inline AdapterTensors query_adapter(const Problem& problem, const EvaParameters& p) {
  return of_variant(problem, {p.query_weight, p.query_bias, p.query_norm_weight, p.query_norm_bias});
}

// kappa, optional, = A_k(kbar) at the chunks' places; omega = mu + clip(eps). `dtype` is that of kappa and of
// the parameters.
void propose(cudaStream_t stream, DType dtype, Tensor kappa, Tensor omega, Tensor kbar, Tensor qbar,
             const EvaParameters& parameters, const Problem& problem, const Chunks& chunks);

// Blocks for propose_backward where A is not the identity, each with sums of its own.
int adapter_blocks(std::int64_t count, std::int64_t d, int multiprocessors);

// din = the gradient of an adapter's input `in`; dkappa (in the chunks' order) + domega, each optional, is
// that of its output. Where A is not the identity, dz = the gradient of W in + b, and column_sums
// (blocks, 3, d) = shares of the gradients of bias, norm_weight and norm_bias. dz may be domega.
void propose_backward(cudaStream_t stream, DType dtype, Tensor din, Tensor dz, Tensor column_sums,
                      Tensor dkappa, Tensor domega, Tensor in, const AdapterTensors& adapter);

}  // namespace flasheva::summary
