// Matrix products, the only user of cuBLASLt. Accumulation is in float32 (float64 for float64).
#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "kernels/factor.h"

namespace flasheva {

class DeviceScratch;

class CudaGemm {
 public:
  // The library's workspace is taken when the first product wants it; it must outlive this.
  CudaGemm(cudaStream_t stream, DeviceScratch& workspace);
  ~CudaGemm();

  // Whether float32 products may read their operands in TF32; at first they may not.
  void allow_tf32(bool allowed);

  // out (M, N) = a (M, K) b (K, N) + bias (N, optional). Everything of one type.
  void multiply(Tensor out, Factor a, Factor b, Tensor bias = {});
  // out (M, N) acc += a (M, K) b (K, N): the gradient of a weight.
  void multiply_add(Tensor out, Factor a, Factor b);

 private:
  class Library;
  std::unique_ptr<Library> library_;
};

}  // namespace flasheva
