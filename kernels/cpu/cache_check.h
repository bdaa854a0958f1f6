// Preconditions that all operations on a cache share.
#pragma once

#include "kernels/check.h"
#include "kernels/cpu/loops.h"
#include "kernels/ops.h"

namespace flasheva {

// `chunk` P, or 0 where the layer has no chunks.
inline void check_cache(const LayerCache& cache, std::int64_t chunk) {
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

inline void check_places(const CachePlaces& places, const LayerCache& cache) {
  FLASHEVA_CHECK(places.sequences.shape.rank() == 1);
  const std::int64_t N = places.sequences.dim(0);
  FLASHEVA_CHECK(matches(places.sequences, DType::i32, {N}) && matches(places.positions, DType::i32, {N}));
  for (std::int64_t i = 0; i < N; ++i) {
    const std::int32_t sequence = places.sequences.as<std::int32_t>()[i];
    FLASHEVA_CHECK(0 <= sequence && sequence < cache.keys.dim(0) &&
                   places.positions.as<std::int32_t>()[i] >= 0);
  }
}

}  // namespace flasheva
