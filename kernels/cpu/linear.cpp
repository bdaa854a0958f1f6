//     forward   out = x weight^T + bias
//     backward  dx = dout weight,  dweight += dout^T x,  dbias += column sums of dout
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/gemm.h"

namespace flasheva {

namespace {

// Threads share the columns. A block of rows is summed by itself first, which keeps the error of long sums
// small.
template <class T>
void add_column_sums(Accumulator<T>* sums, const T* x, std::int64_t rows, std::int64_t columns) {
  using A = Accumulator<T>;
  constexpr std::int64_t block_rows = 64, block_columns = 128;
  parallel_columns(columns, rows, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t column = first; column < last; column += block_columns) {
      const std::int64_t width = std::min(block_columns, last - column);
      for (std::int64_t row = 0; row < rows; row += block_rows) {
        A block[block_columns] = {};
        for (std::int64_t n = row; n < std::min(row + block_rows, rows); ++n) {
          const T* x_n = x + n * columns + column;
#pragma omp simd
          for (std::int64_t i = 0; i < width; ++i) block[i] += static_cast<A>(x_n[i]);
        }
        for (std::int64_t i = 0; i < width; ++i) sums[column + i] += block[i];
      }
    }
  });
}

}  // namespace

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
    add_column_sums(dbias.as<Accumulator<T>>(), dout.as<T>(), dout.dim(0), dout.dim(1));
  });
}

}  // namespace flasheva
