// Preconditions of the operations on a cache, for every device.
#pragma once

#include <algorithm>

#include "kernels/dispatch.h"
#include "kernels/ops.h"

namespace flasheva {

// `chunk` P, or 0 where the layer has no chunks.
inline void check_cache(Device device, const LayerCache& cache, std::int64_t chunk) {
  const auto matches = [=](const Tensor& x, DType dtype, const Shape& shape) {
    return matches_on(device, x, dtype, shape);
  };
  FLASHEVA_CHECK(cache.keys.shape.rank() == 4 && matches(cache.keys, cache.keys.dtype, cache.keys.shape));
  FLASHEVA_CHECK(matches(cache.values, cache.keys.dtype, cache.keys.shape));
  const std::int64_t S = cache.keys.dim(0), H = cache.keys.dim(1), R = cache.keys.dim(2),
                     d = cache.keys.dim(3);
  if (chunk == 0) return;
  FLASHEVA_CHECK(R % chunk == 0 && matches(cache.queries, cache.keys.dtype, {S, H, chunk, d}));
  FLASHEVA_CHECK(!cache.kappa == !cache.beta);
  if (cache.kappa)
    for (const Tensor& x : {cache.kappa, cache.beta})
      FLASHEVA_CHECK(x.shape.rank() == 4 && matches(x, cache.keys.dtype, {S, H, x.dim(2), d}));
}

// What the places say is seen here on the CPU alone; a GPU's kernels leave out places that do not exist, and
// synchronize() throws.
inline void check_places(Device device, const CachePlaces& places, const LayerCache& cache) {
  FLASHEVA_CHECK(places.sequences.shape.rank() == 1);
  const std::int64_t N = places.sequences.dim(0);
  for (const Tensor& x : {places.sequences, places.positions})
    FLASHEVA_CHECK(matches_on(device, x, DType::i32, {N}));
  if (device != Device::cpu) return;
  for (std::int64_t i = 0; i < N; ++i) {
    const std::int32_t sequence = places.sequences.as<std::int32_t>()[i];
    FLASHEVA_CHECK(0 <= sequence && sequence < cache.keys.dim(0) &&
                   places.positions.as<std::int32_t>()[i] >= 0);
  }
}

// P, or 0 where the layer has no chunks.
inline std::int64_t chunk_of(const LayerCache& cache) { return cache.queries ? cache.queries.dim(2) : 0; }

inline void check_append(Device device, const Tensor& q, const LayerCache& cache, const Tensor& qkv,
                         const Tensor& cosine, const Tensor& sine, const CachePlaces& places) {
  check_cache(device, cache, chunk_of(cache));
  check_places(device, places, cache);
  const DType dtype = cache.keys.dtype;
  const std::int64_t N = places.sequences.dim(0), H = cache.keys.dim(1), d = cache.keys.dim(3),
                     half = cosine ? cosine.dim(1) : 0;
  FLASHEVA_CHECK(matches_on(device, q, dtype, {N, H, d}) && matches_on(device, qkv, dtype, {N, 3 * H * d}));
  FLASHEVA_CHECK(!cosine == !sine && 2 * half <= d);
  if (!cosine) return;
  for (const Tensor& x : {cosine, sine})
    FLASHEVA_CHECK(matches_on(device, x, accumulation_type(dtype), {cosine.dim(0), half}));
  if (device != Device::cpu) return;  // as in check_places
  for (std::int64_t i = 0; i < N; ++i) FLASHEVA_CHECK(places.positions.as<std::int32_t>()[i] < cosine.dim(0));
}

// Returns the number of chunks that the segment brings.
inline std::int64_t check_store(Device device, const LayerCache& cache, std::int64_t sequence,
                                std::int64_t first_position, const Tensor& q, const Tensor& k,
                                const Tensor& v, const Tensor& kappa, const Tensor& beta) {
  const std::int64_t P = chunk_of(cache);
  check_cache(device, cache, P);
  const DType dtype = cache.keys.dtype;
  const std::int64_t H = cache.keys.dim(1), d = cache.keys.dim(3);
  FLASHEVA_CHECK(0 <= sequence && sequence < cache.keys.dim(0) && first_position >= 0);
  FLASHEVA_CHECK(q.shape.rank() == 4);
  for (const Tensor& x : {q, k, v}) FLASHEVA_CHECK(matches_on(device, x, dtype, {1, H, q.dim(2), d}));
  if (P == 0) return 0;
  const std::int64_t chunks = q.dim(2) / P;
  FLASHEVA_CHECK(first_position % P == 0);
  if (chunks == 0) return 0;
  for (const Tensor& x : {kappa, beta}) FLASHEVA_CHECK(matches_on(device, x, dtype, {1, H, chunks, d}));
  FLASHEVA_CHECK(cache.kappa && first_position / P + chunks <= cache.kappa.dim(2));
  return chunks;
}

// Returns the number of tokens that come from the cache, O.
inline std::int64_t check_window(Device device, const Tensor& keys, const Tensor& values,
                                 const LayerCache& cache, std::int64_t sequence, std::int64_t first_position,
                                 const Tensor& k, const Tensor& v) {
  check_cache(device, cache, chunk_of(cache));
  const DType dtype = cache.keys.dtype;
  const std::int64_t H = cache.keys.dim(1), R = cache.keys.dim(2), d = cache.keys.dim(3);
  FLASHEVA_CHECK(0 <= sequence && sequence < cache.keys.dim(0));
  FLASHEVA_CHECK(k.shape.rank() == 4 && keys.shape.rank() == 4);
  const std::int64_t t = k.dim(2), old = keys.dim(2) - t;
  FLASHEVA_CHECK(0 <= old && old <= R && old <= first_position);
  for (const Tensor& x : {k, v}) FLASHEVA_CHECK(matches_on(device, x, dtype, {1, H, t, d}));
  for (const Tensor& x : {keys, values}) FLASHEVA_CHECK(matches_on(device, x, dtype, {1, H, old + t, d}));
  return old;
}

// --- rings ------------------------------------------------------------------------------------------------

// Tokens first .. first + count - 1 between rows of a ring (R, d), token m in row m mod R, and rows (count,
// d) that follow one another: calls copy(row of the ring, row, count) for each piece that is whole on both
// sides.
template <class Copy>
void for_ring_pieces(std::int64_t first, std::int64_t count, std::int64_t ring, const Copy& copy) {
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t row = (first + done) % ring, piece = std::min(count - done, ring - row);
    copy(row, done, piece);
    done += piece;
  }
}

}  // namespace flasheva
