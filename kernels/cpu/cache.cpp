// Caches of keys and values (ops.h, LayerCache): a new token of each sequence, or a segment of a prompt,
// brought to its rows, token m in row m mod R.
#include <algorithm>

#include "kernels/cache_contract.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/rotary.h"

namespace flasheva {

namespace {

// The ring (R, d) of head `head` of all sequences' heads = the last of tokens first .. first + count - 1,
// whose rows (count, d) are `in`.
template <class T>
void store_ring(Tensor ring, std::int64_t head, const T* in, std::int64_t first, std::int64_t count) {
  const std::int64_t R = ring.dim(2), d = ring.dim(3), kept = std::min(count, R), left_out = count - kept;
  T* rows = ring.as<T>() + head * R * d;
  for_ring_pieces(first + left_out, kept, R, [&](std::int64_t row, std::int64_t from, std::int64_t piece) {
    std::copy_n(in + (left_out + from) * d, piece * d, rows + row * d);
  });
}

template <class T>
void store_head(const LayerCache& cache, std::int64_t sequence, std::int64_t h, std::int64_t first, Tensor q,
                Tensor k, Tensor v, Tensor kappa, Tensor beta) {
  const std::int64_t H = cache.keys.dim(1), d = cache.keys.dim(3), t = q.dim(2), head = sequence * H + h;
  store_ring(cache.keys, head, k.as<T>() + h * t * d, first, t);
  store_ring(cache.values, head, v.as<T>() + h * t * d, first, t);
  if (!cache.queries) return;
  store_ring(cache.queries, head, q.as<T>() + h * t * d, first, t);
  if (!kappa) return;
  const std::int64_t P = cache.queries.dim(2), C = cache.kappa.dim(2), chunks = kappa.dim(2);
  const std::int64_t at = (head * C + first / P) * d;
  std::copy_n(kappa.as<T>() + h * chunks * d, chunks * d, cache.kappa.as<T>() + at);
  std::copy_n(beta.as<T>() + h * chunks * d, chunks * d, cache.beta.as<T>() + at);
}

// out (old + t, d) = tokens first - old .. first - 1 of the ring, then `in` (t, d).
template <class T>
void window_of_head(T* out, Tensor ring, std::int64_t head, std::int64_t first, std::int64_t old, const T* in,
                    std::int64_t t) {
  const std::int64_t R = ring.dim(2), d = ring.dim(3);
  const T* rows = ring.as<T>() + head * R * d;
  for_ring_pieces(first - old, old, R, [&](std::int64_t row, std::int64_t to, std::int64_t piece) {
    std::copy_n(rows + row * d, piece * d, out + to * d);
  });
  std::copy_n(in, t * d, out + old * d);
}

}  // namespace

void CpuOps::cache_append(Tensor q, const LayerCache& cache, Tensor qkv, Tensor cosine, Tensor sine,
                          const CachePlaces& places) {
  check_append(Device::cpu, q, cache, qkv, cosine, sine, places);
  const DType dtype = cache.keys.dtype;
  const std::int64_t N = places.sequences.dim(0), H = cache.keys.dim(1), R = cache.keys.dim(2),
                     d = cache.keys.dim(3), half = cosine ? cosine.dim(1) : 0, P = chunk_of(cache);
  const auto *sequences = places.sequences.as<std::int32_t>(),
             *positions = places.positions.as<std::int32_t>();
  dispatch(dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    parallel_rows(N, 3 * H * d, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t n = positions[i];
        const A *cosines = cosine.as<A>() + n * half, *sines = sine.as<A>() + n * half;
        for (std::int64_t h = 0; h < H; ++h) {
          const T* in = qkv.as<T>() + (i * H + h) * 3 * d;
          T* query = q.as<T>() + (i * H + h) * d;
          const std::int64_t head = sequences[i] * H + h, row = (head * R + n % R) * d;
          rotate(query, in, cosines, sines, A{1}, half, d);
          rotate(cache.keys.as<T>() + row, in + d, cosines, sines, A{1}, half, d);
          std::copy_n(in + 2 * d, d, cache.values.as<T>() + row);
          if (P > 0) std::copy_n(query, d, cache.queries.as<T>() + (head * P + n % P) * d);
        }
      }
    });
  });
}

void CpuOps::cache_store(const LayerCache& cache, std::int64_t sequence, std::int64_t first_position,
                         Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta) {
  const std::int64_t H = cache.keys.dim(1), d = cache.keys.dim(3);
  const std::int64_t chunks = check_store(Device::cpu, cache, sequence, first_position, q, k, v, kappa, beta);
  dispatch(q.dtype, [&]<class T>(T) {
    parallel_rows(H, 2 * q.dim(2) * d, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t h = begin; h < end; ++h)
        store_head<T>(cache, sequence, h, first_position, q, k, v, chunks > 0 ? kappa : Tensor{}, beta);
    });
  });
}

void CpuOps::cache_window(Tensor keys, Tensor values, const LayerCache& cache, std::int64_t sequence,
                          std::int64_t first_position, Tensor k, Tensor v) {
  const std::int64_t old = check_window(Device::cpu, keys, values, cache, sequence, first_position, k, v);
  const std::int64_t H = cache.keys.dim(1), d = cache.keys.dim(3), t = k.dim(2);
  dispatch(k.dtype, [&]<class T>(T) {
    parallel_rows(H, 2 * (old + t) * d, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t h = begin; h < end; ++h) {
        const std::int64_t head = sequence * H + h, to = h * (old + t) * d, from = h * t * d;
        window_of_head(keys.as<T>() + to, cache.keys, head, first_position, old, k.as<T>() + from, t);
        window_of_head(values.as<T>() + to, cache.values, head, first_position, old, v.as<T>() + from, t);
      }
    });
  });
}

}  // namespace flasheva
