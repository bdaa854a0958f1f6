// What attention asks of its arguments (ops.h), on every device.
#pragma once

#include "kernels/dispatch.h"
#include "kernels/ops.h"

namespace flasheva {

struct AttentionSizes {
  std::int64_t B, H, T, S, C, d;  // T queries; S tokens and C chunks that they see at most

  std::int64_t keys() const { return S + C; }
};

inline AttentionSizes check_attention(Device device, Tensor out, Tensor log_sum_exp, Tensor q, Tensor k,
                                      Tensor v, Tensor kappa, Tensor beta, Tensor chunk_bias,
                                      const AttentionConfig& config) {
  const auto matches = [&](const Tensor& x, DType dtype, const Shape& shape) {
    return matches_on(device, x, dtype, shape);
  };
  FLASHEVA_CHECK(q.shape.rank() == 4 && q.size() > 0 && matches(q, q.dtype, q.shape));
  const std::int64_t B = q.dim(0), H = q.dim(1), T = q.dim(2), d = q.dim(3);
  FLASHEVA_CHECK(k.shape.rank() == 4 && matches(k, q.dtype, {B, H, k.dim(2), d}));
  FLASHEVA_CHECK(matches(v, q.dtype, k.shape));
  FLASHEVA_CHECK(matches(out, q.dtype, {B, T, H * d}));
  FLASHEVA_CHECK(matches(log_sum_exp, accumulation_type(q.dtype), {B, H, T}));
  const Visibility& visibility = config.visibility;
  FLASHEVA_CHECK(visibility.kind == AttentionKind::full || visibility.window > 0);
  FLASHEVA_CHECK(visibility.kind != AttentionKind::eva ||
                 (visibility.chunk > 0 && visibility.window % visibility.chunk == 0));
  const std::int64_t end = config.first_query + T, S = end - config.first_key;
  const std::int64_t C = visibility.visible_chunks(end - 1);
  FLASHEVA_CHECK(0 <= config.first_key && config.first_key <= visibility.first_token(config.first_query));
  FLASHEVA_CHECK(S <= k.dim(2));
  FLASHEVA_CHECK(C == 0 || (kappa && kappa.shape.rank() == 4 && C <= kappa.dim(2)));
  FLASHEVA_CHECK(!kappa ||
                 (matches(kappa, q.dtype, {B, H, kappa.dim(2), d}) && matches(beta, q.dtype, kappa.shape)));
  FLASHEVA_CHECK(C == 0 || config.chunk_bias != ChunkBias::learned || matches(chunk_bias, q.dtype, {H}));
  return {B, H, T, S, C, d};
}

// The sizes of the backward pass count all chunks: those that no query sees have gradients too, 0.
inline AttentionSizes check_attention_backward(Device device, Tensor dq, Tensor dk, Tensor dv, Tensor dkappa,
                                               Tensor dbeta, Tensor dchunk_bias, Tensor dout, Tensor out,
                                               Tensor log_sum_exp, Tensor q, Tensor k, Tensor v, Tensor kappa,
                                               Tensor beta, Tensor chunk_bias,
                                               const AttentionConfig& config) {
  const auto matches = [&](const Tensor& x, DType dtype, const Shape& shape) {
    return matches_on(device, x, dtype, shape);
  };
  AttentionSizes sizes = check_attention(device, out, log_sum_exp, q, k, v, kappa, beta, chunk_bias, config);
  FLASHEVA_CHECK(config.first_query == 0 && config.first_key == 0);
  sizes.C = config.visibility.chunks(sizes.T);
  FLASHEVA_CHECK(matches(k, q.dtype, q.shape) && matches(dout, q.dtype, out.shape));
  FLASHEVA_CHECK(sizes.C == 0 || matches(kappa, q.dtype, {sizes.B, sizes.H, sizes.C, sizes.d}));
  for (Tensor gradient : {dq, dk, dv}) FLASHEVA_CHECK(matches(gradient, q.dtype, q.shape));
  for (Tensor gradient : {dkappa, dbeta})
    FLASHEVA_CHECK(sizes.C == 0 || matches(gradient, q.dtype, kappa.shape));
  FLASHEVA_CHECK(!dchunk_bias || matches(dchunk_bias, accumulation_type(q.dtype), {sizes.H}));
  return sizes;
}

}  // namespace flasheva
