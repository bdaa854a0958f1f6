//     forward   out = x weight^T + bias
//     backward  dx = dout weight,  dweight += dout^T x,  dbias += column sums of dout
#include <algorithm>

#include "kernels/cpu/column_sums.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/scratch_sizes.h"

namespace flasheva {

namespace {

bool are_few_rows(DType dtype, std::int64_t rows) { return rows <= few_rows && dtype != DType::f64; }

}  // namespace

ScratchBytes linear_forward_scratch(DType dtype, const LinearSizes& sizes, bool bias) {
  const auto [rows, inputs, outputs] = sizes;
  if (are_few_rows(dtype, rows)) return few_rows_scratch(rows, inputs);
  return {Gemm::scratch_bytes({rows, outputs, inputs, false, true, dtype, bias, false}), 0};
}

ScratchBytes linear_backward_scratch(DType dtype, const LinearSizes& sizes) {
  const auto [rows, inputs, outputs] = sizes;
  return {std::max(Gemm::scratch_bytes({rows, inputs, outputs, false, false, dtype, false, false}),
                   Gemm::scratch_bytes({outputs, inputs, rows, true, false, dtype, false, true})),
          0};
}

void CpuOps::linear_forward(Tensor out, Tensor x, Tensor weight, Tensor bias) {
  if (x.shape.rank() == 2 && are_few_rows(x.dtype, x.dim(0)))
    return multiply_few_rows(out, x, weight, bias, scratch_);
  gemm_->multiply(out, {x}, transpose(weight), bias);
}

void CpuOps::linear_backward_input(Tensor dx, Tensor dout, Tensor weight) {
  gemm_->multiply(dx, {dout}, {weight});
}

void CpuOps::linear_backward_weight(Tensor dweight, Tensor dbias, Tensor dout, Tensor x) {
  FLASHEVA_CHECK(dout.shape.rank() == 2 && matches(dout, dout.dtype, dout.shape));
  FLASHEVA_CHECK(!dbias || matches(dbias, accumulation_type(dout.dtype), {dout.dim(1)}));
  if (dweight) gemm_->multiply_add(dweight, transpose(dout), {x});
  if (!dbias) return;
  dispatch(dout.dtype, [&]<class T>(T) {
    const auto segment = [&](std::int64_t n, std::int64_t column, std::int64_t) {
      return dout.as<T>() + n * dout.dim(1) + column;
    };
    add_column_sums<T>(dbias.as<Accumulator<T>>(), dout.dim(0), dout.dim(1), segment);
  });
}

}  // namespace flasheva
