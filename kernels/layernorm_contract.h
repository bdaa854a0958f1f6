// What LayerNorm wants of its arguments, on any device.
#pragma once

#include "kernels/dispatch.h"
#include "kernels/ops.h"

namespace flasheva {

inline void check_layernorm(Device device, const Norm& norm, const Norm& second, const Tensor& mean,
                            const Tensor& rstd, const Tensor& x) {
  FLASHEVA_CHECK(x.shape.rank() == 2 && matches_on(device, x, x.dtype, x.shape));
  const Shape rows{x.dim(0)}, columns{x.dim(1)};
  for (const Tensor& statistic : {mean, rstd})
    FLASHEVA_CHECK(matches_on(device, statistic, accumulation_type(x.dtype), rows));
  const auto check = [&](const Norm& of) {
    FLASHEVA_CHECK(matches_on(device, of.out, x.dtype, x.shape));
    for (const Tensor& parameter : {of.weight, of.bias})
      FLASHEVA_CHECK(matches_on(device, parameter, x.dtype, columns));
  };
  check(norm);
  if (second.out) check(second);
}

inline void check_layernorm_gradients(Device device, const Tensor& dx, const NormGradients& norm,
                                      const NormGradients& second, const Tensor& x, const Tensor& mean,
                                      const Tensor& rstd) {
  const auto as_output = [](const NormGradients& of) { return Norm{of.dout, of.weight, of.weight}; };
  check_layernorm(device, as_output(norm), as_output(second), mean, rstd, x);
  FLASHEVA_CHECK(!dx || matches_on(device, dx, x.dtype, x.shape));
  for (const NormGradients& of : {norm, second}) {
    FLASHEVA_CHECK(!of.dweight == !of.dbias);
    for (const Tensor& gradient : {of.dweight, of.dbias})
      FLASHEVA_CHECK(!gradient || matches_on(device, gradient, accumulation_type(x.dtype), of.weight.shape));
  }
}

}  // namespace flasheva
