// Chunk summaries (ops.h): the compressed key kappa and value beta of every complete chunk of P tokens.
//     kbar, qbar = means of k, q          kappa = A_k(kbar)
//     omega = mu + clip(eps)              mu = A_q(qbar) + kappa | kappa | 0
//     p = softmax of s (omega . k_m - |k_m|^2 / 2)        beta = sum of p_m v_m,   s = 1/sqrt(d)
// Adapter learned: kappa = sum of softmax(mu . k_m) k_m, and omega = phi + clip(eps).
// Chunks of a head are taken a block at a time, right after its tokens were split from the fused projection
// and turned; the backward computes the forward's intermediates again and merges the block's tokens last.
#include <omp.h>

#include "kernels/cache_contract.h"
#include "kernels/check.h"
#include "kernels/cpu/chunk_proposal.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/padded_rows.h"
#include "kernels/cpu/rotary.h"
#include "kernels/cpu/scratch_sizes.h"
#include "kernels/cpu/simd.h"
#include "kernels/qkv_rotary_contract.h"

namespace flasheva {

namespace {

using namespace summary;

constexpr std::int64_t worth_sharing = 16384;  // elements of q from which other threads are woken

// --- forward ------------------------------------------------------------------------------------------

// Where a block's rows begin, and its tokens: token t's row of the fused projection is at fused + t * stride.
struct Offsets {
  std::int64_t tokens, chunks, fused, stride;
  std::int64_t first_token, token_count;
};
Offsets offsets_of(const Problem& problem, const ChunkBlock& block) {
  const auto [B, H, T, C, P, d, config] = problem;
  const std::int64_t head = block.b * H + block.h, first = block.first * P, stride = 3 * H * d;
  const bool last = block.first + block.count == C;
  return {(head * T + first) * d,
          (head * C + block.first) * d,
          (block.b * T + first) * stride + block.h * 3 * d,
          stride,
          first,
          last ? T - first : block.count * P};
}

// The angles of a block's first position, and how many dimensions turn.
template <class R>
struct Angles {
  const R *cosine, *sine;
  std::int64_t half;

  Angles(const Tensor& cosines, const Tensor& sines, std::int64_t position)
      : cosine(nullptr), sine(nullptr), half(cosines ? cosines.dim(1) : 0) {
    if (half == 0) return;
    cosine = cosines.as<R>() + position * half;
    sine = sines.as<R>() + position * half;
  }
};

template <class T, class R = Accumulator<T>>
void forward_block(T* kappa, T* beta, const SummaryScratch<R>& scratch, const T* q, const T* k, const T* v,
                   const SummaryParameters<R>& parameters, const Problem& problem, const ChunkBlock& block) {
  const std::int64_t d = problem.d, P = problem.P, row = row_stride<R>(d);
  propose(scratch, q, k, parameters, problem, block);
  for (std::int64_t c = 0; c < block.count; ++c) {
    const T *keys = k + c * P * d, *values = v + c * P * d;
    if (problem.learned()) {
      pool_keys(scratch.pool, parameters.mu + block.h * row, keys, problem);
      combine_rows(scratch.key.out + c * row, scratch.pool, keys, P, d);
    }
    weigh(scratch.weights, scratch.omega + c * row, keys, problem);
    combine_rows(scratch.beta, scratch.weights, values, P, d);
    narrow_rows(beta + c * d, d, scratch.beta, 1, d);
  }
  narrow_rows(kappa, d, scratch.key.out, block.count, d);
}

// --- of a cache: the chunk that a new token finishes, in its rows of the cache ----------------------------

template <class T, class R = Accumulator<T>>
void finish_chunk(const LayerCache& cache, const SummaryScratch<R>& scratch, std::int64_t sequence,
                  std::int64_t position, std::int64_t h, const SummaryParameters<R>& parameters,
                  const Problem& problem) {
  const auto [B, H, R_, C, P, d, config] = problem;
  const std::int64_t head = sequence * H + h, chunk = position / P, rows = cache.keys.dim(2);
  const std::int64_t at = (head * rows + chunk * P % rows) * d, summary = (head * C + chunk) * d;
  const ChunkBlock block{sequence, h, chunk, 1};
  forward_block<T>(cache.kappa.as<T>() + summary, cache.beta.as<T>() + summary, scratch,
                   cache.queries.as<T>() + head * P * d, cache.keys.as<T>() + at, cache.values.as<T>() + at,
                   parameters, problem, block);
}

// --- backward -----------------------------------------------------------------------------------------
//     dv_m += p_m dbeta      dlogit = p (dp - sum of p dp),  dp_m = dbeta . v_m
//     domega = s sum of dlogit_m k_m      dk_m += s dlogit_m (omega - k_m) + d(kbar) / P

template <class R>
struct SummaryBackwardScratch : SummaryScratch<R> {
  R *dkappa, *domega;  // (chunk_block, d)
  R *dkbar, *dqbar;    // (chunk_block, d)
  R* dlogits;          // (chunk_block, P)
  R *dbeta, *dpool;    // (d), (P)

  SummaryBackwardScratch(Carver& carver, const Problem& problem) : SummaryScratch<R>(carver, problem) {
    const std::int64_t row = row_stride<R>(problem.d);
    for (R** p : {&dkappa, &domega, &dkbar, &dqbar}) *p = carver.take<R>(chunk_block * row);
    dlogits = carver.take<R>(chunk_block * problem.P);
    dbeta = carver.take<R>(row);
    dpool = carver.take<R>(problem.P);
  }
};

// Of chunk c: dv (P, d) +=; dlogits, times s, and domega =.
template <class T, class R>
void backward_value(T* dv, const SummaryBackwardScratch<R>& scratch, const T* dbeta, const T* k, const T* v,
                    const Problem& problem, std::int64_t c) {
  const std::int64_t d = problem.d, P = problem.P, row = row_stride<R>(d);
  const R scale = 1 / std::sqrt(static_cast<R>(d));
  R* dlogits = scratch.dlogits + c * P;
  widen_rows(scratch.dbeta, dbeta, d, 1, d);
  weigh(scratch.weights, scratch.omega + c * row, k, problem);
  for (std::int64_t m = 0; m < P; ++m) {
    dlogits[m] = dot(scratch.dbeta, v + m * d, d);
    add_scaled(dv + m * d, scratch.weights[m], scratch.dbeta, d);
  }
  softmax_backward(dlogits, scratch.weights, P);
  for (std::int64_t m = 0; m < P; ++m) dlogits[m] *= scale;
  combine_rows(scratch.domega + c * row, dlogits, k, P, d);
}

// From dkappa and domega of a block to dkbar and dqbar; gradients +=.
template <class R>
void backward_proposal(const SummaryBackwardScratch<R>& scratch, const SummaryArrays<R>& gradients,
                       const SummaryArrays<R>& parameters, const Problem& problem, const ChunkBlock& block) {
  const std::int64_t d = problem.d, row = row_stride<R>(d);
  if (problem.learned()) {
    for (std::int64_t c = 0; c < block.count; ++c)
      add_scaled(gradients.phi + block.h * row, R(1), scratch.domega + c * row, d);
    return;
  }
  if (problem.config.proposal != Proposal::zero)
    for (std::int64_t c = 0; c < block.count; ++c)
      add_scaled(scratch.dkappa + c * row, R(1), scratch.domega + c * row, d);
  const auto adapter = [&](R* din, R* dout, const AdapterArrays<R>& gradient, const AdapterBlock<R>& rows,
                           const AdapterArrays<R>& arrays) {
    if (problem.adapted())
      adapter_backward(din, dout, gradient, rows, arrays, problem.layernorm(), block.count, d);
    else
      std::copy(dout, dout + block.count * row, din);
  };
  adapter(scratch.dkbar, scratch.dkappa, gradients.key, scratch.key, parameters.key);
  if (problem.uses_queries())
    adapter(scratch.dqbar, scratch.domega, gradients.query, scratch.query, parameters.query);
}

// dk (d) += dlogit (omega - k) + a x + b y, rounded once.
template <class T, class R>
void add_key_gradient(T* dk, R dlogit, const R* omega, const T* k, R a, const R* x, R b, const R* y,
                      std::int64_t d) {
  using simd::broadcast, simd::fma, simd::load;
  for_vectors<R>(d, [&](std::int64_t i, auto part) {
    const auto logit_share = (load(omega + i) - part.load(k + i)) * dlogit;
    const auto pool_share = fma(broadcast(a), load(x + i), load(y + i) * b);
    part.store(dk + i, part.load(dk + i) + (logit_share + pool_share));
  });
}

// Of chunk c: dk (P, d) +=, and with adapter learned the gradient of mu +=.
template <class T, class R>
void backward_keys(T* dk, const SummaryBackwardScratch<R>& scratch, const SummaryArrays<R>& gradients,
                   const T* k, const SummaryArrays<R>& parameters, const Problem& problem, std::int64_t h,
                   std::int64_t c) {
  const std::int64_t d = problem.d, P = problem.P, row = row_stride<R>(d);
  const R *dlogits = scratch.dlogits + c * P, *omega = scratch.omega + c * row;
  if (!problem.learned()) {
    const R* dkbar = scratch.dkbar + c * row;
    for (std::int64_t m = 0; m < P; ++m)
      add_key_gradient(dk + m * d, dlogits[m], omega, k + m * d, R(1) / static_cast<R>(P), dkbar, R(0), dkbar,
                       d);
    return;
  }
  const R *mu = parameters.mu + h * row, *dkappa = scratch.dkappa + c * row;
  pool_keys(scratch.pool, mu, k, problem);
  for (std::int64_t m = 0; m < P; ++m) scratch.dpool[m] = dot(dkappa, k + m * d, d);
  softmax_backward(scratch.dpool, scratch.pool, P);
  combine_rows(scratch.dbeta, scratch.dpool, k, P, d);
  add_scaled(gradients.mu + h * row, R(1), scratch.dbeta, d);
  for (std::int64_t m = 0; m < P; ++m)
    add_key_gradient(dk + m * d, dlogits[m], omega, k + m * d, scratch.pool[m], dkappa, scratch.dpool[m], mu,
                     d);
}

// The tensors of one block, each at its first element.
template <class T>
struct BackwardRows {
  T *dq, *dk, *dv;
  const T *dkappa, *dbeta, *q, *k, *v;
};

template <class T, class R = Accumulator<T>>
void backward_block(const BackwardRows<T>& rows, const SummaryBackwardScratch<R>& scratch,
                    const SummaryArrays<R>& gradients, const SummaryParameters<R>& parameters,
                    const Problem& problem, const ChunkBlock& block) {
  const std::int64_t d = problem.d, P = problem.P, chunk_size = P * d;
  propose(scratch, rows.q, rows.k, parameters, problem, block);
  widen_rows(scratch.dkappa, rows.dkappa, d, block.count, d);
  for (std::int64_t c = 0; c < block.count; ++c) {
    const std::int64_t at = c * chunk_size;
    backward_value(rows.dv + at, scratch, rows.dbeta + c * d, rows.k + at, rows.v + at, problem, c);
  }
  backward_proposal(scratch, gradients, parameters, problem, block);
  for (std::int64_t c = 0; c < block.count; ++c) {
    const std::int64_t at = c * chunk_size;
    backward_keys(rows.dk + at, scratch, gradients, rows.k + at, parameters, problem, block.h, c);
    if (!problem.uses_queries()) continue;
    for (std::int64_t m = 0; m < P; ++m)
      add_scaled(rows.dq + at + m * d, R(1) / static_cast<R>(P), scratch.dqbar + c * row_stride<R>(d), d);
  }
}

}  // namespace

ScratchBytes summary_forward_scratch(DType dtype, const Problem& problem) {
  ScratchBytes bytes;
  dispatch(dtype, [&]<class T>(T) {
    using R = Accumulator<T>;
    bytes = {bytes_of_layout<SummaryParameters<R>>(problem), bytes_of_layout<SummaryScratch<R>>(problem)};
  });
  return bytes;
}

ScratchBytes summary_backward_scratch(DType dtype, const Problem& problem) {
  ScratchBytes bytes;
  dispatch(dtype, [&]<class T>(T) {
    using R = Accumulator<T>;
    bytes = {bytes_of_layout<SharedArrays<R>>(problem), bytes_of_layout<SummaryBackwardScratch<R>>(problem)};
  });
  return bytes;
}

void CpuOps::qkv_summary_forward(Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta, Tensor qkv,
                                 Tensor cosine, Tensor sine, const EvaParameters& parameters,
                                 const ChunkSummaryConfig& config) {
  checked_qkv(Device::cpu, qkv, q, k, v, cosine, sine);
  const Problem problem = checked_problem(Device::cpu, kappa, beta, q, k, v, parameters, config);
  dispatch(q.dtype, [&]<class T>(T) {
    using R = Accumulator<T>;
    const auto widened = scratch_.shared<SummaryParameters<R>>(problem);
    const ThreadMemory of_threads = scratch_.of_threads<SummaryScratch<R>>(problem);
    widen_parameters<T>(widened, parameters, problem);
#pragma omp parallel for schedule(static) if (q.size() >= worth_sharing)
    for (std::int64_t i = 0; i < blocks_of(problem); ++i) {
      const ChunkBlock block = chunk_block_at(problem, i);
      const Offsets at = offsets_of(problem, block);
      const Angles<R> angles(cosine, sine, at.first_token);
      T *queries = q.as<T>() + at.tokens, *keys = k.as<T>() + at.tokens, *values = v.as<T>() + at.tokens;
      for (std::int64_t t = 0; t < at.token_count; ++t)
        split_token(queries + t * problem.d, keys + t * problem.d, values + t * problem.d,
                    qkv.as<T>() + at.fused + t * at.stride, angles.cosine + t * angles.half,
                    angles.sine + t * angles.half, angles.half, problem.d);
      if (block.count > 0)
        forward_block<T>(kappa.as<T>() + at.chunks, beta.as<T>() + at.chunks,
                         of_threads.carve<SummaryScratch<R>>(problem), queries, keys, values, widened,
                         problem, block);
    }
  });
}

void CpuOps::chunk_summary_cached(const LayerCache& cache, const EvaParameters& parameters,
                                  const ChunkSummaryConfig& config, const CachePlaces& places) {
  check_cache(Device::cpu, cache, config.chunk);
  check_places(Device::cpu, places, cache);
  FLASHEVA_CHECK(!config.noise.enabled);
  if (!cache.kappa) return;  // no room for a whole chunk
  const DType dtype = cache.keys.dtype;
  const std::int64_t H = cache.keys.dim(1), rows = cache.keys.dim(2), d = cache.keys.dim(3);
  const Problem problem{cache.keys.dim(0), H, rows, cache.kappa.dim(2), config.chunk, d, config};
  check_parameters(Device::cpu, parameters, problem, dtype);
  const auto *sequences = places.sequences.as<std::int32_t>(),
             *positions = places.positions.as<std::int32_t>();
  const std::int64_t N = places.positions.dim(0);
  const auto finishes = [&](std::int64_t i) { return positions[i] % config.chunk == config.chunk - 1; };
  std::int64_t finished = 0;
  for (std::int64_t i = 0; i < N; ++i) finished += finishes(i);
  if (finished == 0) return;
  dispatch(dtype, [&]<class T>(T) {
    using R = Accumulator<T>;
    const auto widened = scratch_.shared<SummaryParameters<R>>(problem);
    const ThreadMemory of_threads = scratch_.of_threads<SummaryScratch<R>>(problem);
    widen_parameters<T>(widened, parameters, problem);
#pragma omp parallel for schedule(static) if (finished * H * config.chunk * d >= worth_sharing)
    for (std::int64_t i = 0; i < N * H; ++i)
      if (finishes(i / H))
        finish_chunk<T>(cache, of_threads.carve<SummaryScratch<R>>(problem), sequences[i / H],
                        positions[i / H], i % H, widened, problem);
  });
}

void CpuOps::qkv_summary_backward(Tensor dqkv, const EvaParameters& gradients, Tensor dq, Tensor dk,
                                  Tensor dv, Tensor dkappa, Tensor dbeta, Tensor q, Tensor k, Tensor v,
                                  Tensor cosine, Tensor sine, const EvaParameters& parameters,
                                  const ChunkSummaryConfig& config) {
  checked_qkv(Device::cpu, dqkv, dq, dk, dv, cosine, sine);
  const Problem problem = checked_problem(Device::cpu, dkappa, dbeta, q, k, v, parameters, config);
  FLASHEVA_CHECK(matches(dq, q.dtype, q.shape));
  check_gradients(Device::cpu, gradients, parameters);
  dispatch(q.dtype, [&]<class T>(T) {
    using R = Accumulator<T>;
    const auto shared = scratch_.shared<SharedArrays<R>>(problem);
    const ThreadMemory of_threads = scratch_.of_threads<SummaryBackwardScratch<R>>(problem);
    const int threads = shared.shares;
    widen_parameters<T>(shared.parameters, parameters, problem);
    // One contiguous share of the blocks a thread, one sum of gradients a share, added up in order.
#pragma omp parallel for schedule(static, 1) num_threads(threads) if (q.size() >= worth_sharing)
    for (int share = 0; share < threads; ++share) {
      const SummaryArrays<R> sums = shared.sums(share);
      for (std::int64_t i = blocks_of(problem) * share / threads;
           i < blocks_of(problem) * (share + 1) / threads; ++i) {
        const ChunkBlock block = chunk_block_at(problem, i);
        const Offsets at = offsets_of(problem, block);
        const BackwardRows<T> rows{dq.as<T>() + at.tokens,    dk.as<T>() + at.tokens,
                                   dv.as<T>() + at.tokens,    dkappa.as<T>() + at.chunks,
                                   dbeta.as<T>() + at.chunks, q.as<T>() + at.tokens,
                                   k.as<T>() + at.tokens,     v.as<T>() + at.tokens};
        if (block.count > 0)
          backward_block<T>(rows, of_threads.carve<SummaryBackwardScratch<R>>(problem), sums,
                            shared.parameters, problem, block);
        const Angles<R> angles(cosine, sine, at.first_token);
        for (std::int64_t t = 0; t < at.token_count; ++t)
          merge_token(dqkv.as<T>() + at.fused + t * at.stride, rows.dq + t * problem.d,
                      rows.dk + t * problem.d, rows.dv + t * problem.d, angles.cosine + t * angles.half,
                      angles.sine + t * angles.half, angles.half, problem.d);
      }
    }
    for (int share = 0; share < threads; ++share) add_gradients(gradients, shared.sums(share), problem);
  });
}

}  // namespace flasheva
