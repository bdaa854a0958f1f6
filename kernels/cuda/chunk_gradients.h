// Gradients of the parameters of chunk summaries: sums over all chunks, by shares of them that are added up
// in order.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/chunks.cuh"

namespace flasheva::summary {

// Shares of `count` rows.
int gradient_shares(std::int64_t count);

// sums (gradient_shares(count), d, d) = dz^T in by shares of the rows dz, in (count, d).
void multiply_shares(cudaStream_t stream, Tensor sums, Tensor dz, Tensor in);
// sums (gradient_shares(B C), H, d) = the rows (count, d) of every head by shares.
void sum_heads(cudaStream_t stream, Tensor sums, Tensor rows, const Chunks& chunks);

// gradient, optional, += shares, for several gradients at once. Sums of a gradient are `stride` apart.
class GradientSums {
 public:
  static constexpr int most = 8;  // of two adapters

  void add(Tensor gradient, Tensor sums, std::int64_t first, std::int64_t stride, int shares);
  void start(cudaStream_t stream) const;

 private:
  struct Sum {
    Tensor gradient, sums;
    std::int64_t first, stride;
    int shares;
  };
  Sum sums_[most];
  int count_ = 0;
};

}  // namespace flasheva::summary
