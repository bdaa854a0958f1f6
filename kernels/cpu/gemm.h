// Matrix products, the only user of oneDNN.
//
// float32 products and, where the CPU multiplies bfloat16 itself (AVX512_BF16, AMX), bfloat16 products go to
// oneDNN's matmul. Elsewhere bfloat16 operands, and float16 ones everywhere, are widened to float32 first and
// the result is rounded once at the end, as the hardware would. float64 products, which serve gradient checks
// alone, are plain loops.
#pragma once

#include <memory>
#include <string>

#include "kernels/factor.h"

namespace flasheva {

class Gemm {
 public:
  Gemm();
  ~Gemm();

  // out (M, N) = a (M, K) b (K, N) + bias (N, optional). Everything of one type.
  void multiply(Tensor out, Factor a, Factor b, Tensor bias = {});
  // out (M, N) acc += a (M, K) b (K, N): the gradient of a weight.
  void multiply_add(Tensor out, Factor a, Factor b);

 private:
  class OneDnn;

  void product(Tensor out, Factor a, Factor b, Tensor bias, bool accumulate);

  std::unique_ptr<OneDnn> onednn_;
};

// "oneDNN 2.6.0 (AVX2)": the library and what it takes the CPU for.
std::string gemm_library();

}  // namespace flasheva
