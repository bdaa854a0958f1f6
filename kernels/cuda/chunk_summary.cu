// Chunk summaries (ops.h): the compressed key kappa and value beta of every complete chunk of P tokens.
//     kbar, qbar = means of k, q          kappa = A_k(kbar)
//     omega = mu + clip(eps)              mu = A_q(qbar) + kappa | kappa | 0
//     p = softmax of s (omega . k_m - |k_m|^2 / 2)        beta = sum of p_m v_m,   s = 1/sqrt(d)
// Adapter learned: kappa = sum of softmax(mu . k_m) k_m, and omega = phi + clip(eps).
// Three passes: over tokens (chunk_pooling.cu), over rows of means (chunk_proposal.cu), over tokens again;
// the backward computes the forward's intermediates again and goes the same way back.
#include "kernels/cache_contract.h"
#include "kernels/cuda/chunk_gradients.h"
#include "kernels/cuda/chunk_pooling.h"
#include "kernels/cuda/chunk_proposal.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/scratch_pieces.h"

namespace flasheva {

namespace {

using namespace summary;

// A warp holds rows in registers.
void check_head_dim(const Problem& problem) { FLASHEVA_CHECK(problem.d <= 256); }

Chunks chunks_of(const Problem& problem) {
  const auto [B, H, T, C, P, d, config] = problem;
  const int tokens = static_cast<int>(T);
  return {static_cast<int>(B * H * C), static_cast<int>(H), tokens, tokens, static_cast<int>(C),
          static_cast<int>(P),         static_cast<int>(d)};
}

// Rows of all chunks.
struct ForwardScratch {
  Tensor kbar, qbar, omega;  // (count, d)

  ForwardScratch(ScratchPieces& pieces, DType acc, const Problem& problem, int count) {
    const Shape rows{count, problem.d};
    kbar = pieces.take(acc, rows);
    if (problem.uses_queries()) qbar = pieces.take(acc, rows);
    omega = pieces.take(acc, rows);
  }
};

// omega and, if present, kappa.
void pool_and_propose(cudaStream_t stream, const ForwardScratch& scratch, Tensor kappa, Tensor q, Tensor k,
                      const EvaParameters& parameters, const Problem& problem, const Chunks& chunks) {
  pool_keys(stream, scratch.kbar, scratch.qbar, q, k, problem.learned() ? parameters.mu : Tensor{}, chunks);
  propose(stream, k.dtype, kappa, scratch.omega, scratch.kbar, scratch.qbar, parameters, problem, chunks);
}

// --- backward ---------------------------------------------------------------------------------------------

// Sums for the gradients of one adapter.
struct AdapterSums {
  Tensor weight, columns;  // (shares, d, d), (blocks, 3, d)
};

struct BackwardScratch : ForwardScratch {
  Tensor domega, dkbar, dqbar;  // (count, d)
  Tensor dz;                    // (count, d): of the key's adapter; with adapter learned, of mu
  Tensor dlogits;               // (count, P)
  AdapterSums key, query;
  Tensor mu, phi;  // (shares, H, d): sums for their gradients

  BackwardScratch(ScratchPieces& pieces, DType acc, const Problem& problem, int count, int multiprocessors)
      : ForwardScratch(pieces, acc, problem, count) {
    const std::int64_t d = problem.d;
    for (Tensor* x : {&domega, &dkbar, &dz}) *x = pieces.take(acc, {count, d});
    if (problem.uses_queries()) dqbar = pieces.take(acc, {count, d});
    dlogits = pieces.take(acc, {count, problem.P});
    if (problem.adapted())
      for (AdapterSums* x : {&key, &query}) {
        x->weight = pieces.take(acc, {weight_shares(count), d, d});
        x->columns = pieces.take(acc, {adapter_blocks(count, d, multiprocessors), 3, d});
      }
    if (problem.learned())
      for (Tensor* x : {&mu, &phi}) *x = pieces.take(acc, {head_shares(count / problem.H), problem.H, d});
  }
};

// From the gradient dkappa + domega of an adapter's output to that of its input `in`, din.
void adapter_backward(cudaStream_t stream, GradientSums& all, const AdapterSums& sums, Tensor din, Tensor dz,
                      Tensor dkappa, Tensor domega, Tensor in, DType dtype, const AdapterTensors& parameters,
                      const AdapterTensors& gradients) {
  propose_backward(stream, dtype, din, dz, sums.columns, dkappa, domega, in, parameters);
  if (!parameters.weight) return;
  if (gradients.weight) multiply_shares(stream, sums.weight, dz, in);
  const std::int64_t d = in.dim(1);
  all.add(gradients.weight, sums.weight);
  all.add(gradients.bias, sums.columns);
  all.add(gradients.norm_weight, sums.columns, d);
  all.add(gradients.norm_bias, sums.columns, 2 * d);
}

}  // namespace

void CudaOps::chunk_summary_forward(Tensor kappa, Tensor beta, Tensor q, Tensor k, Tensor v,
                                    const EvaParameters& parameters, const ChunkSummaryConfig& config) {
  const Problem problem = checked_problem(Device::cuda, kappa, beta, q, k, v, parameters, config);
  check_head_dim(problem);
  const Chunks chunks = chunks_of(problem);
  if (chunks.count == 0) return;
  const auto scratch = carve<ForwardScratch>(scratch_, accumulation_type(k.dtype), problem, chunks.count);
  pool_and_propose(stream_, scratch, kappa, q, k, parameters, problem, chunks);
  pool_values(stream_, beta, scratch.omega, k, v, chunks);
}

void CudaOps::chunk_summary_cached(const LayerCache& cache, const EvaParameters& parameters,
                                   const ChunkSummaryConfig& config, const CachePlaces& places) {
  check_cache(Device::cuda, cache, config.chunk);
  check_places(Device::cuda, places, cache);
  FLASHEVA_CHECK(!config.noise.enabled);
  if (!cache.kappa) return;  // no room for a whole chunk
  const DType dtype = cache.keys.dtype;
  const std::int64_t S = cache.keys.dim(0), H = cache.keys.dim(1), rows = cache.keys.dim(2),
                     C = cache.kappa.dim(2), P = config.chunk, d = cache.keys.dim(3);
  const Problem problem{S, H, rows, C, P, d, config};
  check_parameters(Device::cuda, parameters, problem, dtype);
  check_head_dim(problem);
  Chunks chunks{static_cast<int>(places.positions.dim(0) * H),
                static_cast<int>(H),
                static_cast<int>(P),
                static_cast<int>(rows),
                static_cast<int>(C),
                static_cast<int>(P),
                static_cast<int>(d),
                places.sequences.as<std::int32_t>(),
                places.positions.as<std::int32_t>(),
                static_cast<int>(S)};
  if (chunks.count == 0) return;
  const auto scratch = carve<ForwardScratch>(scratch_, accumulation_type(dtype), problem, chunks.count);
  pool_and_propose(stream_, scratch, cache.kappa, cache.queries, cache.keys, parameters, problem, chunks);
  pool_values(stream_, cache.beta, scratch.omega, cache.keys, cache.values, chunks);
}

void CudaOps::chunk_summary_backward(Tensor dq, Tensor dk, Tensor dv, const EvaParameters& gradients,
                                     Tensor dkappa, Tensor dbeta, Tensor q, Tensor k, Tensor v,
                                     const EvaParameters& parameters, const ChunkSummaryConfig& config) {
  const Problem problem = checked_problem(Device::cuda, dkappa, dbeta, q, k, v, parameters, config);
  for (Tensor gradient : {dq, dk, dv}) FLASHEVA_CHECK(matches_on_gpu(gradient, q.dtype, q.shape));
  check_gradients(Device::cuda, gradients, parameters);
  check_head_dim(problem);
  const Chunks chunks = chunks_of(problem);
  if (chunks.count == 0) return;
  const auto x =
      carve<BackwardScratch>(scratch_, accumulation_type(k.dtype), problem, chunks.count, multiprocessors_);
  pool_and_propose(stream_, x, {}, q, k, parameters, problem, chunks);
  pool_values_backward(stream_, dv, x.dlogits, x.domega, dbeta, x.omega, k, v, chunks);

  GradientSums sums;
  const bool centred = !problem.learned() && config.proposal != Proposal::zero;
  adapter_backward(stream_, sums, x.key, x.dkbar, x.dz, dkappa, centred ? x.domega : Tensor{}, x.kbar,
                   k.dtype, key_adapter(problem, parameters), key_adapter(problem, gradients));
  if (problem.uses_queries())
    adapter_backward(stream_, sums, x.query, x.dqbar, x.domega, {}, x.domega, x.qbar, k.dtype,
                     query_adapter(problem, parameters), query_adapter(problem, gradients));
  const Tensor mu = problem.learned() ? parameters.mu : Tensor{};
  pool_keys_backward(stream_, dq, dk, x.dz, x.dkbar, x.dqbar, x.dlogits, x.omega, k, mu, chunks);
  if (problem.learned()) {
    const auto add_heads = [&](Tensor gradient, Tensor head_sums, Tensor rows) {
      if (gradient) sum_heads(stream_, head_sums, rows, chunks);
      sums.add(gradient, head_sums);
    };
    add_heads(gradients.mu, x.mu, x.dz);
    add_heads(gradients.phi, x.phi, x.domega);
  }
  sums.start(stream_);
}

}  // namespace flasheva
