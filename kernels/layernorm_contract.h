// What LayerNorm wants of its arguments, on any device.
#pragma once

#include "kernels/dispatch.h"

namespace flasheva {

inline void check_layernorm(Device device, const Tensor& out, const Tensor& mean, const Tensor& rstd,
                            const Tensor& x, const Tensor& weight, const Tensor& bias) {
  FLASHEVA_CHECK(x.shape.rank() == 2 && matches_on(device, x, x.dtype, x.shape));
  const Shape rows{x.dim(0)}, columns{x.dim(1)};
  const DType accumulation = accumulation_type(x.dtype);
  FLASHEVA_CHECK(matches_on(device, out, x.dtype, x.shape));
  FLASHEVA_CHECK(matches_on(device, weight, x.dtype, columns) && matches_on(device, bias, x.dtype, columns));
  FLASHEVA_CHECK(matches_on(device, mean, accumulation, rows) &&
                 matches_on(device, rstd, accumulation, rows));
}

inline void check_layernorm_gradients(Device device, const Tensor& dx, const Tensor& dweight,
                                      const Tensor& dbias, const Tensor& dout, const Tensor& x,
                                      const Tensor& weight, const Tensor& mean, const Tensor& rstd) {
  check_layernorm(device, dout, mean, rstd, x, weight, weight);
  const DType accumulation = accumulation_type(x.dtype);
  FLASHEVA_CHECK(!dx || matches_on(device, dx, x.dtype, x.shape));
  FLASHEVA_CHECK(!dweight == !dbias);
  FLASHEVA_CHECK(!dweight || (matches_on(device, dweight, accumulation, weight.shape) &&
                              matches_on(device, dbias, accumulation, weight.shape)));
}

}  // namespace flasheva
