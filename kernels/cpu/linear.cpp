//     forward   out = x weight^T + bias
//     backward  dx = dout weight,  dweight += dout^T x,  dbias += column sums of dout
#include "kernels/cpu/column_sums.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/gemm.h"

namespace flasheva {

void CpuOps::linear_forward(Tensor out, Tensor x, Tensor weight, Tensor bias) {
  if (x.shape.rank() == 2 && x.dim(0) <= few_rows && x.dtype != DType::f64)
    return multiply_few_rows(out, x, weight, bias, partials_);
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
