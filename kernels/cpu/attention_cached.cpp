// Attention of the newest token of each sequence to what is cached of it (ops.h, LayerCache):
//
//     o = softmax over [ s q.k_m , m in a(n)..n ;  s q.kappa_c + bias , c < visible_chunks(n) ]
//         applied to [ v_m ; beta_c ],  s = 1/sqrt(d)
//
// in one pass with an online softmax. Every key and value is read once and used for one query, so that the
// bytes of the cache are the limit: rows are read in the order in which they lie, as they are stored.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cache_contract.h"
#include "kernels/check.h"
#include "kernels/cpu/attention_bias.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/padded_rows.h"
#include "kernels/cpu/scratch_sizes.h"
#include "kernels/cpu/simd.h"

namespace flasheva {

namespace {

using namespace padded;

constexpr std::int64_t key_block = 128;  // keys whose logits are held at a time

// One query on its way over its keys. Logits are in units of log2.
template <class R>
struct OneQuery {
  R* query;   // (d padded), times s log2(e)
  R* out;     // (d padded), not yet divided by `sum`
  R* logits;  // (key_block)
  R max, sum;

  OneQuery(Carver& carver, std::int64_t d) : max(std::numeric_limits<R>::lowest() / 2), sum(0) {
    query = carver.take<R>(padded_width<R>(d));
    out = carver.take<R>(padded_width<R>(d));
    logits = carver.take<R>(key_block);
  }
};

// logits (count, in whole vectors) = query . keys + bias; behind `count` -inf.
template <class T, class R>
void logits_of(const OneQuery<R>& one, const T* keys, std::int64_t count, R bias, std::int64_t d) {
  constexpr int lanes = simd::lanes<R>;
  const std::int64_t whole = cpu_attention::round_up(count, lanes);
  std::fill(one.logits + count, one.logits + whole, -std::numeric_limits<R>::infinity());
  constexpr std::int64_t rows = 4;  // products that run side by side
  std::int64_t j = 0;
  for (; j + rows <= count; j += rows) {
    simd::Vector<R> sums[rows] = {};
    for_vectors<R>(d, [&](std::int64_t i, auto part) {
      const auto query = simd::load(one.query + i);
      for (std::int64_t r = 0; r < rows; ++r)
        sums[r] = simd::fma(query, part.load(keys + (j + r) * d + i), sums[r]);
    });
    for (std::int64_t r = 0; r < rows; ++r) one.logits[j + r] = simd::sum(sums[r]) + bias;
  }
  for (; j < count; ++j) one.logits[j] = dot(one.query, keys + j * d, d) + bias;
}

// The logits become weights under the maximum so far, to which sum and out are brought.
template <class R>
void softmax_step(OneQuery<R>& one, std::int64_t count, std::int64_t d) {
  constexpr int lanes = simd::lanes<R>;
  auto largest = simd::broadcast(one.max);
  for (std::int64_t j = 0; j < count; j += lanes) largest = simd::max(simd::load(one.logits + j), largest);
  const R max_now = simd::maximum(largest);
  simd::Vector<R> added{};
  for (std::int64_t j = 0; j < count; j += lanes) {
    const auto weight = simd::exp2(simd::load(one.logits + j) - max_now);
    added += weight;
    simd::store(one.logits + j, weight);
  }
  const R factor = simd::exp2(simd::broadcast(one.max - max_now))[0];
  one.sum = one.sum * factor + simd::sum(added);
  one.max = max_now;
  if (factor == 1) return;
  for (std::int64_t i = 0; i < d; i += lanes) simd::store(one.out + i, simd::load(one.out + i) * factor);
}

// out += sum of weights[j] values_j over elements i .. i + vectors * lanes - 1 of the rows, kept in
// registers.
template <int vectors, class T, class R>
void add_values(R* out, const R* weights, const T* values, std::int64_t count, std::int64_t d) {
  constexpr int lanes = simd::lanes<R>;
  simd::Vector<R> sums[vectors];
  for (int v = 0; v < vectors; ++v) sums[v] = simd::load(out + v * lanes);
  for (std::int64_t j = 0; j < count; ++j) {
    const auto weight = simd::broadcast(weights[j]);
    for (int v = 0; v < vectors; ++v)
      sums[v] = simd::fma(weight, simd::load(values + j * d + v * lanes), sums[v]);
  }
  for (int v = 0; v < vectors; ++v) simd::store(out + v * lanes, sums[v]);
}

// out (d padded) += sum of weights[j] values_j.
template <class T, class R>
void combine_values(const OneQuery<R>& one, const T* values, std::int64_t count, std::int64_t d) {
  constexpr int lanes = simd::lanes<R>, most = 4;
  std::int64_t i = 0;
  for (; i + most * lanes <= d; i += most * lanes)
    add_values<most>(one.out + i, one.logits, values + i, count, d);
  for (; i + lanes <= d; i += lanes) add_values<1>(one.out + i, one.logits, values + i, count, d);
  if (i == d) return;
  auto sum = simd::load(one.out + i);
  for (std::int64_t j = 0; j < count; ++j)
    sum = simd::fma(simd::broadcast(one.logits[j]), simd::load_first(values + j * d + i, d - i), sum);
  simd::store(one.out + i, sum);
}

// Rows (count, d) of keys and values, all of them seen.
template <class T, class R>
void attend(OneQuery<R>& one, const T* keys, const T* values, std::int64_t count, R bias, std::int64_t d) {
  for (std::int64_t begin = 0; begin < count; begin += key_block) {
    const std::int64_t block = std::min(key_block, count - begin);
    logits_of(one, keys + begin * d, block, bias, d);
    softmax_step(one, block, d);
    combine_values(one, values + begin * d, block, d);
  }
}

// out (d) of head h of one sequence, whose newest token is n.
template <class T, class R = Accumulator<T>>
void attend_cache(T* out, OneQuery<R> one, const T* q, const LayerCache& cache, std::int64_t head,
                  std::int64_t n, R bias, const Visibility& visibility) {
  const std::int64_t rows = cache.keys.dim(2), d = cache.keys.dim(3);
  widen_rows(one.query, q, d, 1, d, cpu_attention::log2_e<R> / std::sqrt(static_cast<R>(d)));
  std::fill(one.out, one.out + padded_width<R>(d), R(0));

  const T *keys = cache.keys.as<T>() + head * rows * d, *values = cache.values.as<T>() + head * rows * d;
  const std::int64_t first = visibility.first_token(n), seen = n + 1 - first, begin = first % rows;
  const std::int64_t to_the_end =
      std::min(seen, rows - begin);  // what is left stands at the ring's beginning
  attend(one, keys + begin * d, values + begin * d, to_the_end, R(0), d);
  attend(one, keys, values, seen - to_the_end, R(0), d);
  if (const std::int64_t chunks = visibility.visible_chunks(n); chunks > 0) {
    const std::int64_t at = head * cache.kappa.dim(2) * d;
    attend(one, cache.kappa.as<T>() + at, cache.beta.as<T>() + at, chunks, bias, d);
  }
  narrow_rows(out, d, one.out, 1, d, 1 / one.sum);
}

}  // namespace

ScratchBytes attention_cached_scratch(DType dtype, std::int64_t head_dim) {
  ScratchBytes bytes;
  dispatch(dtype,
           [&]<class T>(T) { bytes.of_a_thread = bytes_of_layout<OneQuery<Accumulator<T>>>(head_dim); });
  return bytes;
}

void CpuOps::attention_cached(Tensor out, Tensor q, const LayerCache& cache, Tensor chunk_bias,
                              const AttentionConfig& config, const CachePlaces& places) {
  const Visibility& visibility = config.visibility;
  check_cache(Device::cpu, cache, visibility.kind == AttentionKind::eva ? visibility.chunk : 0);
  check_places(Device::cpu, places, cache);
  const DType dtype = cache.keys.dtype;
  const std::int64_t N = places.sequences.dim(0), H = cache.keys.dim(1), d = cache.keys.dim(3);
  FLASHEVA_CHECK(matches(out, dtype, {N, H * d}) && matches(q, dtype, {N, H, d}));
  const auto *sequences = places.sequences.as<std::int32_t>(),
             *positions = places.positions.as<std::int32_t>();
  std::int64_t elements = 0;
  for (std::int64_t i = 0; i < N; ++i) {
    const std::int64_t n = positions[i], seen = n + 1 - visibility.first_token(n),
                       chunks = visibility.visible_chunks(n);
    FLASHEVA_CHECK(seen <= cache.keys.dim(2));
    FLASHEVA_CHECK(chunks == 0 || (cache.kappa && chunks <= cache.kappa.dim(2)));
    FLASHEVA_CHECK(chunks == 0 || config.chunk_bias != ChunkBias::learned || matches(chunk_bias, dtype, {H}));
    elements += (seen + chunks) * H * d;
  }
  dispatch(dtype, [&]<class T>(T) {
    using R = Accumulator<T>;
    constexpr std::int64_t worth_sharing = 16384;
    const ThreadMemory of_threads = scratch_.of_threads<OneQuery<R>>(d);
#pragma omp parallel for schedule(dynamic) if (elements >= worth_sharing)
    for (std::int64_t i = 0; i < N * H; ++i) {
      const std::int64_t token = i / H, h = i % H;
      attend_cache<T>(out.as<T>() + i * d, of_threads.carve<OneQuery<R>>(d), q.as<T>() + i * d, cache,
                      sequences[token] * H + h, positions[token],
                      cpu_attention::chunk_bias_of<T>(h, chunk_bias, config), visibility);
    }
  });
}

}  // namespace flasheva
