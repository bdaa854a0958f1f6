// How products of bfloat16 matrices are computed outside of oneDNN: in attention.
#pragma once

namespace flasheva {

enum class Bf16Products {
  widened,   // from operands widened to float32
  pairs,     // by AVX512_BF16's dot product of pairs
  emulated,  // the same in plain arithmetic, for tests on other machines
};

// `pairs` where that is faster on this CPU (gemm.cpp, beside the choice for oneDNN's products);
// DNNL_MAX_CPU_ISA caps the instructions of both.
Bf16Products best_bf16_products();

}  // namespace flasheva
