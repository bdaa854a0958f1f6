// What the backward pass of GELU wants of its arguments, on any device.
#pragma once

#include "kernels/dispatch.h"

namespace flasheva {

inline void check_gelu_gradients(Device device, const Tensor& dx, const Tensor& dbias, const Tensor& dout,
                                 const Tensor& x) {
  FLASHEVA_CHECK(x.shape.rank() == 2);
  for (const Tensor& tensor : {dx, dout, x}) FLASHEVA_CHECK(matches_on(device, tensor, x.dtype, x.shape));
  FLASHEVA_CHECK(!dbias || matches_on(device, dbias, accumulation_type(x.dtype), {x.dim(1)}));
}

}  // namespace flasheva
