// What the search for values that are not finite wants of its arguments, on any device.
#pragma once

#include <span>

#include "kernels/dispatch.h"

namespace flasheva {

inline void check_first_not_finite(Device device, const Tensor& first, std::span<const Tensor> tensors) {
  FLASHEVA_CHECK(matches_on(device, first, DType::i32, {1}));
  FLASHEVA_CHECK(!tensors.empty());
  for (const Tensor& x : tensors) FLASHEVA_CHECK(matches_on(device, x, x.dtype, x.shape));
}

}  // namespace flasheva
