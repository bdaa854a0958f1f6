// Splits the fused projection (B, T, 3D), per head [q_h | k_h | v_h], into q, k, v (B, H, T, d) and applies
// the rotary embedding (Su et al., "RoFormer", 2021) to the first 2R dimensions of q and k, half against
// half:
//     forward   [x1 | x2] -> [x1 cos - x2 sin | x2 cos + x1 sin]
//     backward  the rotation by the opposite angle, which is its inverse and its transpose
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/rotary.h"
#include "kernels/qkv_rotary_contract.h"

namespace flasheva {

namespace {

// Calls body(offset in qkv, offset in q, k and v, position t) for every token and head; a thread takes
// tokens.
template <class Body>
void for_each_head(const QkvSizes& sizes, const Body& body) {
  const auto [batch, heads, tokens, head_dim, rotary] = sizes;
  parallel_rows(batch * tokens, 3 * heads * head_dim, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      const std::int64_t b = row / sizes.tokens, t = row % sizes.tokens;
      for (std::int64_t h = 0; h < sizes.heads; ++h)
        body((row * sizes.heads + h) * 3 * sizes.head_dim,
             ((b * sizes.heads + h) * sizes.tokens + t) * sizes.head_dim, t);
    }
  });
}

}  // namespace

void CpuOps::qkv_rotary_forward(Tensor q, Tensor k, Tensor v, Tensor qkv, Tensor cosine, Tensor sine) {
  const QkvSizes sizes = checked_qkv(Device::cpu, qkv, q, k, v, cosine, sine);
  dispatch(q.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    for_each_head(sizes, [&](std::int64_t fused, std::int64_t head, std::int64_t t) {
      split_token(q.as<T>() + head, k.as<T>() + head, v.as<T>() + head, qkv.as<T>() + fused,
                  cosine.as<A>() + t * sizes.rotary, sine.as<A>() + t * sizes.rotary, sizes.rotary,
                  sizes.head_dim);
    });
  });
}

void CpuOps::qkv_rotary_backward(Tensor dqkv, Tensor dq, Tensor dk, Tensor dv, Tensor cosine, Tensor sine) {
  const QkvSizes sizes = checked_qkv(Device::cpu, dqkv, dq, dk, dv, cosine, sine);
  dispatch(dq.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    for_each_head(sizes, [&](std::int64_t fused, std::int64_t head, std::int64_t t) {
      merge_token(dqkv.as<T>() + fused, dq.as<T>() + head, dk.as<T>() + head, dv.as<T>() + head,
                  cosine.as<A>() + t * sizes.rotary, sine.as<A>() + t * sizes.rotary, sizes.rotary,
                  sizes.head_dim);
    });
  });
}

}  // namespace flasheva
