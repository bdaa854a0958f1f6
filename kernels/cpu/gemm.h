// Matrix products, the only user of oneDNN.
//
// float32 products and, where the CPU multiplies bfloat16 itself (AVX512_BF16, AMX), bfloat16 products go to
// oneDNN's matmul. Elsewhere bfloat16 operands, and float16 ones everywhere, are widened to float32 first and
// the result is rounded once at the end, as the hardware would. float64 products, which serve gradient checks
// alone, are plain loops.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cpu/scratch.h"
#include "kernels/factor.h"

namespace flasheva {

// A product without its matrices: out (m, n) = or += a (m, k) b (k, n) + bias (n), each of a and b stored as
// it is or transposed.
struct Product {
  std::int64_t m, n, k;
  bool a_transposed, b_transposed;
  DType type;  // of a, b and bias
  bool bias, accumulate;
};

class Gemm {
 public:
  // `scratch`: where products take what they need; it must outlive the Gemm.
  explicit Gemm(CpuScratch& scratch);
  ~Gemm();

  // What a product takes of the memory that threads share: operands that are copied, and the scratchpad that
  // oneDNN asks for. Its gemm:jit, which it takes for float32 below AVX-512, and elsewhere for weight
  // gradients whose operand is spread, does not ask: it takes panels of up to about 2 MB a thread by itself,
  // and gives them back, in every product (oneDNN 2.6).
  static std::int64_t scratch_bytes(const Product& product);

  // out (M, N) = a (M, K) b (K, N) + bias (N, optional). Everything of one type.
  void multiply(Tensor out, Factor a, Factor b, Tensor bias = {});
  // out (M, N) acc += a (M, K) b (K, N): the gradient of a weight.
  void multiply_add(Tensor out, Factor a, Factor b);

 private:
  class OneDnn;

  void product(Tensor out, Factor a, Factor b, Tensor bias, bool accumulate);

  CpuScratch& scratch_;
  std::unique_ptr<OneDnn> onednn_;
};

// "oneDNN 2.6.0 (AVX2)": the library and what it takes the CPU for.
std::string gemm_library();

}  // namespace flasheva
