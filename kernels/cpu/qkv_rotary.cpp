// Splits the fused projection (B, T, 3D), per head [q_h | k_h | v_h], into q, k, v (B, H, T, d) and applies
// the rotary embedding (Su et al., "RoFormer", 2021) to the first 2R dimensions of q and k, half against
// half:
//     forward   [x1 | x2] -> [x1 cos - x2 sin | x2 cos + x1 sin]
//     backward  the rotation by the opposite angle, which is its inverse and its transpose
#include <algorithm>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/rotary.h"

namespace flasheva {

namespace {

struct Sizes {
  std::int64_t batch, heads, tokens, head_dim, rotary;  // B, H, T, d, R
};

// Calls body(offset in qkv, offset in q, k and v, position t) for every token and head; a thread takes
// tokens.
template <class Body>
void for_each_head(const Sizes& sizes, const Body& body) {
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

Sizes check(const Tensor& qkv, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cosine,
            const Tensor& sine) {
  FLASHEVA_CHECK(q.shape.rank() == 4 && matches(q, q.dtype, q.shape));
  FLASHEVA_CHECK(matches(k, q.dtype, q.shape) && matches(v, q.dtype, q.shape));
  const Sizes sizes{q.dim(0), q.dim(1), q.dim(2), q.dim(3), cosine ? cosine.dim(1) : 0};
  FLASHEVA_CHECK(matches(qkv, q.dtype, {sizes.batch, sizes.tokens, 3 * sizes.heads * sizes.head_dim}));
  FLASHEVA_CHECK(!cosine == !sine);
  FLASHEVA_CHECK(!cosine || matches(cosine, accumulation_type(q.dtype), {cosine.dim(0), sizes.rotary}));
  FLASHEVA_CHECK(!cosine || matches(sine, accumulation_type(q.dtype), cosine.shape));
  FLASHEVA_CHECK(!cosine || (cosine.dim(0) >= sizes.tokens && 2 * sizes.rotary <= sizes.head_dim));
  return sizes;
}

}  // namespace

void CpuOps::qkv_rotary_forward(Tensor q, Tensor k, Tensor v, Tensor qkv, Tensor cosine, Tensor sine) {
  const Sizes sizes = check(qkv, q, k, v, cosine, sine);
  dispatch(q.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    for_each_head(sizes, [&](std::int64_t fused, std::int64_t head, std::int64_t t) {
      const T* in = qkv.as<T>() + fused;
      const A *cosines = cosine.as<A>() + t * sizes.rotary, *sines = sine.as<A>() + t * sizes.rotary;
      rotate(q.as<T>() + head, in, cosines, sines, A{1}, sizes.rotary, sizes.head_dim);
      rotate(k.as<T>() + head, in + sizes.head_dim, cosines, sines, A{1}, sizes.rotary, sizes.head_dim);
      std::copy_n(in + 2 * sizes.head_dim, sizes.head_dim, v.as<T>() + head);
    });
  });
}

void CpuOps::qkv_rotary_backward(Tensor dqkv, Tensor dq, Tensor dk, Tensor dv, Tensor cosine, Tensor sine) {
  const Sizes sizes = check(dqkv, dq, dk, dv, cosine, sine);
  dispatch(dq.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    for_each_head(sizes, [&](std::int64_t fused, std::int64_t head, std::int64_t t) {
      T* out = dqkv.as<T>() + fused;
      const A *cosines = cosine.as<A>() + t * sizes.rotary, *sines = sine.as<A>() + t * sizes.rotary;
      rotate(out, dq.as<T>() + head, cosines, sines, A{-1}, sizes.rotary, sizes.head_dim);
      rotate(out + sizes.head_dim, dk.as<T>() + head, cosines, sines, A{-1}, sizes.rotary, sizes.head_dim);
      std::copy_n(dv.as<T>() + head, sizes.head_dim, out + 2 * sizes.head_dim);
    });
  });
}

}  // namespace flasheva
