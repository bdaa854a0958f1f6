// Splits the fused projection (B, T, 3D), per head [q_h | k_h | v_h], into q, k, v (B, H, T, d) and applies
// the rotary embedding to the first 2R dimensions of q and k, half against half:
//     forward   [x1 | x2] -> [x1 cos - x2 sin | x2 cos + x1 sin]
//     backward  the rotation by the opposite angle, which is its inverse and its transpose
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rotary.cuh"
#include "kernels/qkv_rotary_contract.h"

namespace flasheva {

namespace {

constexpr int threads = 256;

// What both directions work on; threads are numbered along the fused rows.
template <class T>
struct Qkv {
  T *fused, *q, *k, *v;
  const Accumulator<T>*cosine, *sine;
  int heads, tokens, head_dim, half;
  std::int64_t units;  // of all rows
};

template <int width, bool forward, class T>
__global__ void __launch_bounds__(threads) qkv_rotary_kernel(Qkv<T> x) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (index >= x.units) return;
  const int turned = rotary_units(x.head_dim, x.half, width), plain = rotary_units(x.head_dim, 0, width);
  const std::int64_t head_row = index / (2 * turned + plain);  // of (B, T, H)
  const int unit = static_cast<int>(index % (2 * turned + plain)), h = static_cast<int>(head_row % x.heads);
  const std::int64_t row = head_row / x.heads;
  const int t = static_cast<int>(row % x.tokens), b = static_cast<int>(row / x.tokens);

  const int which = unit < turned ? 0 : unit < 2 * turned ? 1 : 2;
  T* fused = x.fused + (head_row * 3 + which) * x.head_dim;
  T* split = (which == 0   ? x.q
              : which == 1 ? x.k
                           : x.v) +
             ((static_cast<std::int64_t>(b) * x.heads + h) * x.tokens + t) * x.head_dim;
  const std::int64_t angle = static_cast<std::int64_t>(t) * x.half;
  turn_unit<width, T>(forward ? split : fused, forward ? fused : split, x.cosine + angle, x.sine + angle,
                      forward ? 1 : -1, which < 2 ? x.half : 0, unit - which * turned);
}

template <bool forward, class T>
void split_or_merge(cudaStream_t stream, Tensor fused, Tensor q, Tensor k, Tensor v, Tensor cosine,
                    Tensor sine, const QkvSizes& sizes) {
  using A = Accumulator<T>;
  Qkv<T> x{fused.as<T>(),
           q.as<T>(),
           k.as<T>(),
           v.as<T>(),
           cosine.as<A>(),
           sine.as<A>(),
           static_cast<int>(sizes.heads),
           static_cast<int>(sizes.tokens),
           static_cast<int>(sizes.head_dim),
           static_cast<int>(sizes.rotary),
           0};
  const auto start = [&]<int width>(std::integral_constant<int, width>) {
    x.units = sizes.batch * sizes.tokens * sizes.heads *
              (2 * rotary_units(x.head_dim, x.half, width) + rotary_units(x.head_dim, 0, width));
    launch(stream, qkv_rotary_kernel<width, forward, T>, {divide_up(x.units, threads)}, threads, 0, x);
  };
  if (turns_in_vectors<T>(x.head_dim, x.half, x.cosine, x.sine, x.fused, x.q, x.k, x.v))
    start(std::integral_constant<int, vector_width<T>>{});
  else
    start(std::integral_constant<int, 1>{});
}

}  // namespace

void CudaOps::qkv_rotary_forward(Tensor q, Tensor k, Tensor v, Tensor qkv, Tensor cosine, Tensor sine) {
  const QkvSizes sizes = checked_qkv(Device::cuda, qkv, q, k, v, cosine, sine);
  dispatch(q.dtype, [&]<class T>(T) { split_or_merge<true, T>(stream_, qkv, q, k, v, cosine, sine, sizes); });
}

void CudaOps::qkv_rotary_backward(Tensor dqkv, Tensor dq, Tensor dk, Tensor dv, Tensor cosine, Tensor sine) {
  const QkvSizes sizes = checked_qkv(Device::cuda, dqkv, dq, dk, dv, cosine, sine);
  dispatch(dq.dtype,
           [&]<class T>(T) { split_or_merge<false, T>(stream_, dqkv, dq, dk, dv, cosine, sine, sizes); });
}

}  // namespace flasheva
