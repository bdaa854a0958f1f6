// What the operations of CpuOps take while they run (scratch.h), for a plan. Each function stands beside its
// operation and measures the layouts that it uses. All are for as many threads as OpenMP has now; an
// operation that is not here takes nothing.
#pragma once

#include "kernels/attention_contract.h"
#include "kernels/chunk_summary_contract.h"
#include "kernels/cpu/scratch.h"

namespace flasheva {

// out (rows, outputs) = x (rows, inputs) weight (outputs, inputs)^T.
struct LinearSizes {
  std::int64_t rows, inputs, outputs;
};
ScratchBytes linear_forward_scratch(DType dtype, const LinearSizes& sizes, bool bias);
// Of linear_backward_input and linear_backward_weight.
ScratchBytes linear_backward_scratch(DType dtype, const LinearSizes& sizes);

ScratchBytes layernorm_backward_scratch(DType dtype, std::int64_t columns);

// Of qkv_summary_forward and chunk_summary_cached.
ScratchBytes summary_forward_scratch(DType dtype, const summary::Problem& problem);
ScratchBytes summary_backward_scratch(DType dtype, const summary::Problem& problem);

ScratchBytes attention_forward_scratch(DType dtype, const AttentionSizes& sizes);
ScratchBytes attention_backward_scratch(DType dtype, const AttentionSizes& sizes);
ScratchBytes attention_cached_scratch(DType dtype, std::int64_t head_dim);

// Of sums_of_squares and squared_distance, for tensors of so many elements.
ScratchBytes squares_scratch(std::int64_t elements);

}  // namespace flasheva
