// Gradients of the parameters of chunk summaries: sums over all chunks, by shares of them that are added up
// in order.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/chunk_scratch.h"
#include "kernels/cuda/chunks.cuh"

namespace flasheva::summary {

// sums (weight_shares(count), d, d) = dz^T in by shares of the rows dz, in (count, d).
void multiply_shares(cudaStream_t stream, Tensor sums, Tensor dz, Tensor in);
// sums (head_shares(B C), H, d) = the rows (B, H, C, d) of every head by shares.
void sum_heads(cudaStream_t stream, Tensor sums, Tensor rows);

// gradient, optional, += the shares of its sums (shares, ...), of which it begins at element `first`; several
// gradients at once.
class GradientSums {
 public:
  static constexpr int most = 8;  // of two adapters

  void add(Tensor gradient, Tensor sums, std::int64_t first = 0);
  void start(cudaStream_t stream) const;

 private:
  struct Sum {
    Tensor gradient, sums;
    std::int64_t first;
  };
  Sum sums_[most];
  int count_ = 0;
};

}  // namespace flasheva::summary
