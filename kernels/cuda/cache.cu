// Caches of keys and values (ops.h, LayerCache): a new token of each sequence, or a segment of a prompt,
// brought to its rows, token m in row m mod R.
#include "kernels/cache_contract.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rotary.cuh"

namespace flasheva {

namespace {

constexpr int threads = 128;

// --- a new token of each sequence ----------------------------------------------------------------------

template <class T>
struct NewTokens {
  T *q, *keys, *values, *queries;  // queries: null without chunks
  const T* qkv;
  const Accumulator<T>*cosine, *sine;
  const std::int32_t *sequences, *positions;
  int* bad_place;                                                 // CudaOps::bad_token_
  int all_sequences, heads, rows, chunk, head_dim, half, angles;  // S, H, R, P, d
  std::int64_t units;
};

// One thread a unit of the fused rows (N, H, 3, d), as qkv_rotary_kernel has them.
template <int width, class T>
__global__ void __launch_bounds__(threads) append_kernel(NewTokens<T> x) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (index >= x.units) return;
  const int d = x.head_dim, turned = rotary_units(d, x.half, width), plain = rotary_units(d, 0, width);
  const int head_row = static_cast<int>(index / (2 * turned + plain));  // of (N, H)
  const int unit = static_cast<int>(index % (2 * turned + plain));
  const int sequence = x.sequences[head_row / x.heads], n = x.positions[head_row / x.heads];
  if (sequence < 0 || sequence >= x.all_sequences || n < 0 || (x.half > 0 && n >= x.angles)) {
    atomicExch(x.bad_place, 2);
    return;
  }

  const std::int64_t head = static_cast<std::int64_t>(sequence) * x.heads + head_row % x.heads;
  const int which = unit < turned ? 0 : unit < 2 * turned ? 1 : 2;
  const T* in = x.qkv + (static_cast<std::int64_t>(head_row) * 3 + which) * d;
  const std::int64_t angle = static_cast<std::int64_t>(n) * x.half;
  const auto write = [&](T* out) {
    turn_unit<width, T>(out, in, x.cosine + angle, x.sine + angle, 1, which < 2 ? x.half : 0,
                        unit - which * turned);
  };
  if (which > 0) return write((which == 1 ? x.keys : x.values) + (head * x.rows + n % x.rows) * d);
  write(x.q + static_cast<std::int64_t>(head_row) * d);
  if (x.queries != nullptr) write(x.queries + (head * x.chunk + n % x.chunk) * d);
}

// --- a segment of a prompt -----------------------------------------------------------------------------

// Rows (count, d) of each of H heads, from out_first and in_first on; heads are whole tensors (rows, d)
// apart.
void copy_rows(cudaStream_t stream, Tensor out, std::int64_t out_head, std::int64_t out_first, Tensor in,
               std::int64_t in_head, std::int64_t in_first, std::int64_t count) {
  const std::int64_t heads = out.dim(1);
  const std::size_t row = static_cast<std::size_t>(out.dim(3)) * size_in_bytes(out.dtype);
  const auto row_at = [row](Tensor x, std::int64_t head, std::int64_t first) {
    return static_cast<std::byte*>(x.data) + static_cast<std::size_t>(head * x.dim(2) + first) * row;
  };
  if (count == 0) return;
  FLASHEVA_CUDA(cudaMemcpy2DAsync(
      row_at(out, out_head, out_first), static_cast<std::size_t>(out.dim(2)) * row,
      row_at(in, in_head, in_first), static_cast<std::size_t>(in.dim(2)) * row,
      static_cast<std::size_t>(count) * row, static_cast<std::size_t>(heads), cudaMemcpyDefault, stream));
}

// The rings (H, R, d) of a sequence = the last of tokens first .. first + T - 1, whose rows are `in` (1, H,
// T, d).
void store_rings(cudaStream_t stream, Tensor rings, std::int64_t sequence, Tensor in, std::int64_t first) {
  const std::int64_t R = rings.dim(2), t = in.dim(2), kept = std::min(t, R), left_out = t - kept;
  for_ring_pieces(first + left_out, kept, R, [&](std::int64_t row, std::int64_t from, std::int64_t piece) {
    copy_rows(stream, rings, sequence * rings.dim(1), row, in, 0, left_out + from, piece);
  });
}

// out (1, H, old + t, d) = tokens first - old .. first - 1 of the rings, then `in` (1, H, t, d).
void window_of_rings(cudaStream_t stream, Tensor out, Tensor rings, std::int64_t sequence, std::int64_t first,
                     std::int64_t old, Tensor in) {
  for_ring_pieces(first - old, old, rings.dim(2), [&](std::int64_t row, std::int64_t to, std::int64_t piece) {
    copy_rows(stream, out, 0, to, rings, sequence * rings.dim(1), row, piece);
  });
  copy_rows(stream, out, 0, old, in, 0, 0, in.dim(2));
}

}  // namespace

void CudaOps::cache_append(Tensor q, const LayerCache& cache, Tensor qkv, Tensor cosine, Tensor sine,
                           const CachePlaces& places) {
  check_append(Device::cuda, q, cache, qkv, cosine, sine, places);
  const auto size = [](const Tensor& x, int i) { return x ? static_cast<int>(x.dim(i)) : 0; };
  dispatch(q.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    NewTokens<T> x{q.as<T>(),
                   cache.keys.as<T>(),
                   cache.values.as<T>(),
                   cache.queries.as<T>(),
                   qkv.as<T>(),
                   cosine.as<A>(),
                   sine.as<A>(),
                   places.sequences.as<std::int32_t>(),
                   places.positions.as<std::int32_t>(),
                   bad_token_,
                   size(cache.keys, 0),
                   size(cache.keys, 1),
                   size(cache.keys, 2),
                   size(cache.queries, 2),
                   size(cache.keys, 3),
                   size(cosine, 1),
                   size(cosine, 0),
                   0};
    const auto start = [&]<int width>(std::integral_constant<int, width>) {
      x.units = q.dim(0) * x.heads *
                (2 * rotary_units(x.head_dim, x.half, width) + rotary_units(x.head_dim, 0, width));
      launch(stream_, append_kernel<width, T>, {divide_up(x.units, threads)}, threads, 0, x);
    };
    if (turns_in_vectors<T>(x.head_dim, x.half, x.cosine, x.sine, x.q, x.keys, x.values, x.queries, x.qkv))
      start(std::integral_constant<int, vector_width<T>>{});
    else
      start(std::integral_constant<int, 1>{});
  });
}

void CudaOps::cache_store(const LayerCache& cache, std::int64_t sequence, std::int64_t first_position,
                          Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta) {
  const std::int64_t chunks =
      check_store(Device::cuda, cache, sequence, first_position, q, k, v, kappa, beta);
  store_rings(stream_, cache.keys, sequence, k, first_position);
  store_rings(stream_, cache.values, sequence, v, first_position);
  if (cache.queries) store_rings(stream_, cache.queries, sequence, q, first_position);
  if (chunks == 0) return;
  const std::int64_t head = sequence * cache.keys.dim(1), first = first_position / chunk_of(cache);
  copy_rows(stream_, cache.kappa, head, first, kappa, 0, 0, chunks);
  copy_rows(stream_, cache.beta, head, first, beta, 0, 0, chunks);
}

void CudaOps::cache_window(Tensor keys, Tensor values, const LayerCache& cache, std::int64_t sequence,
                           std::int64_t first_position, Tensor k, Tensor v) {
  const std::int64_t old = check_window(Device::cuda, keys, values, cache, sequence, first_position, k, v);
  window_of_rings(stream_, keys, cache.keys, sequence, first_position, old, k);
  window_of_rings(stream_, values, cache.values, sequence, first_position, old, v);
}

}  // namespace flasheva
