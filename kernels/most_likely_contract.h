// What the choice of the most likely token wants of its arguments, on any device.
#pragma once

#include "kernels/dispatch.h"

namespace flasheva {

inline void check_most_likely(Device device, const Tensor& tokens, const Tensor& logits) {
  FLASHEVA_CHECK(logits.shape.rank() == 2 && matches_on(device, logits, logits.dtype, logits.shape));
  FLASHEVA_CHECK(logits.dim(1) > 0);
  FLASHEVA_CHECK(matches_on(device, tokens, DType::i32, {logits.dim(0)}));
}

}  // namespace flasheva
