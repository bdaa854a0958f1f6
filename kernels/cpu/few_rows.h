// Products of few rows, as in generation: every weight is used a few times only, so that reading the weights
// is the limit, or nearly. oneDNN packs them first, which reads and writes them once more: 32 rows reached
// 115-150 GFLOP/s there and reach about 205 here (2 Emerald Rapids cores).
#pragma once

#include "kernels/cpu/scratch.h"
#include "kernels/tensor.h"

namespace flasheva {

// Rows up to which this way is taken.
inline constexpr std::int64_t few_rows = 64;

// out (N, O) = x (N, I) weight (O, I)^T + bias (O), optional; N <= few_rows, float32, bfloat16 or float16. A
// row of out has the same bits whatever the other rows are and however many: its products are summed one
// after the other.
void multiply_few_rows(Tensor out, Tensor x, Tensor weight, Tensor bias, CpuScratch& scratch);
ScratchBytes few_rows_scratch(std::int64_t rows, std::int64_t inputs);

}  // namespace flasheva
