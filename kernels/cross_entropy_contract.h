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

inline void check_cross_entropy_backward(Device device, const Tensor& logits, const Tensor& losses,
                                         const Tensor& targets, const Tensor& mask, const Tensor& scale) {
  check_cross_entropy(device, losses, logits, targets, mask);
  FLASHEVA_CHECK(matches_on(device, scale, accumulation_type(logits.dtype), {1}));
}

}  // namespace flasheva
