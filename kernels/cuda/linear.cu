//     forward   out = x weight^T + bias
//     backward  dx = dout weight,  dweight += dout^T x,  dbias += column sums of dout
#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/gemm.h"

namespace flasheva {

void CudaOps::allow_tf32(bool allowed) { gemm_->allow_tf32(allowed); }

void CudaOps::linear_forward(Tensor out, Tensor x, Tensor weight, Tensor bias) {
  gemm_->multiply(out, {x}, transpose(weight), bias);
}

void CudaOps::linear_backward_input(Tensor dx, Tensor dout, Tensor weight) {
  gemm_->multiply(dx, {dout}, {weight});
}

void CudaOps::linear_backward_weight(Tensor dweight, Tensor dbias, Tensor dout, Tensor x) {
  FLASHEVA_CHECK(dout.shape.rank() == 2 && matches_on_gpu(dout, dout.dtype, dout.shape));
  FLASHEVA_CHECK(!dbias || matches_on_gpu(dbias, accumulation_type(dout.dtype), {dout.dim(1)}));
  if (dweight) gemm_->multiply_add(dweight, transpose(dout), {x});
  if (!dbias) return;
  dispatch(dout.dtype, [&]<class T>(T) {
    add_column_sums(stream_, scratch_, multiprocessors_, dbias.as<Accumulator<T>>(),
                    Elements<T>{dout.as<T>()}, dout.dim(0), dout.dim(1));
  });
}

}  // namespace flasheva
