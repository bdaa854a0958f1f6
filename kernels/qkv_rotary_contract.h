// Preconditions of splitting and rotating the fused projection, for every device.
#pragma once

#include "kernels/dispatch.h"

namespace flasheva {

struct QkvSizes {
  std::int64_t batch, heads, tokens, head_dim, rotary;  // B, H, T, d, R
};

inline QkvSizes checked_qkv(Device device, const Tensor& qkv, const Tensor& q, const Tensor& k,
                            const Tensor& v, const Tensor& cosine, const Tensor& sine) {
  const DType dtype = q.dtype, table = accumulation_type(dtype);
  FLASHEVA_CHECK(q.shape.rank() == 4);
  for (const Tensor& x : {q, k, v}) FLASHEVA_CHECK(matches_on(device, x, dtype, q.shape));
  const QkvSizes sizes{q.dim(0), q.dim(1), q.dim(2), q.dim(3), cosine ? cosine.dim(1) : 0};
  FLASHEVA_CHECK(
      matches_on(device, qkv, dtype, {sizes.batch, sizes.tokens, 3 * sizes.heads * sizes.head_dim}));
  FLASHEVA_CHECK(!cosine == !sine);
  if (!cosine) return sizes;
  for (const Tensor& x : {cosine, sine})
    FLASHEVA_CHECK(matches_on(device, x, table, {cosine.dim(0), sizes.rotary}));
  FLASHEVA_CHECK(cosine.dim(0) >= sizes.tokens && 2 * sizes.rotary <= sizes.head_dim);
  return sizes;
}

}  // namespace flasheva
