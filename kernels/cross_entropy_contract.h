// What the cross-entropy wants of its arguments, on any device; targets within the vocabulary are each
// device's own matter.
#pragma once

#include "kernels/dispatch.h"

namespace flasheva {

inline void check_cross_entropy(Device device, const Tensor& losses, const Tensor& logits,
                                const Tensor& targets, const Tensor& mask) {
  FLASHEVA_CHECK(logits.shape.rank() == 2 && matches_on(device, logits, logits.dtype, logits.shape));
  const Shape rows{logits.dim(0)};
  FLASHEVA_CHECK(matches_on(device, losses, accumulation_type(logits.dtype), rows));
  FLASHEVA_CHECK(matches_on(device, targets, DType::i32, rows));
  FLASHEVA_CHECK(!mask || matches_on(device, mask, DType::u8, rows));
}

}  // namespace flasheva
