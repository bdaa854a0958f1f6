// Chunk summaries (ops.h): the compressed key kappa and value beta of every complete chunk of P tokens.
//     kbar, qbar = means of k, q          kappa = A_k(kbar)
//     omega = mu + clip(eps)              mu = A_q(qbar) + kappa | kappa | 0
//     p = softmax of s (omega . k_m - |k_m|^2 / 2)        beta = sum of p_m v_m,   s = 1/sqrt(d)
// Adapter learned: kappa = sum of softmax(mu . k_m) k_m, and omega = phi + clip(eps).
// One pass over tokens each way (chunk_forward.cu, chunk_backward.cu), together with the split of the fused
// projection and the rotation; the backward computes the forward's intermediates again.
#include "kernels/cache_contract.h"
#include "kernels/cuda/chunk_gradients.h"
#include "kernels/cuda/chunk_passes.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/qkv_rotary_contract.h"

namespace flasheva {

namespace {

using namespace summary;

// A warp holds rows in registers.
void check_head_dim(const Problem& problem) { FLASHEVA_CHECK(problem.d <= 256); }

Chunks chunks_of(const Problem& problem) {
  const auto [B, H, T, C, P, d, config] = problem;
  const std::int64_t of_head = divide_up(T, P);
  const int tokens = static_cast<int>(T);
  return {static_cast<int>(B * H * of_head),
          static_cast<int>(H),
          tokens,
          tokens,
          static_cast<int>(C),
          static_cast<int>(P),
          static_cast<int>(d),
          static_cast<int>(of_head)};
}

// --- backward ---------------------------------------------------------------------------------------------

// What the gradients of one adapter are made of, or its gradients.
struct AdapterGradients {
  Tensor weight, bias, norm_weight, norm_bias;
};

// gradients += what the chunks gave.
void add_gradients(cudaStream_t stream, const EvaParameters& gradients, const BackwardScratch& x,
                   const Problem& problem) {
  const AdapterGradients adapters[] = {
      {gradients.key_weight, gradients.key_bias, gradients.key_norm_weight, gradients.key_norm_bias},
      {gradients.query_weight, gradients.query_bias, gradients.query_norm_weight, gradients.query_norm_bias}};
  GradientSums sums;
  for (int which = 0; which < 2; ++which) {
    if (!x.column_sums[which]) continue;
    if (x.weights[which]) multiply_shares(stream, x.weights[which], x.dz[which], x.in[which]);
    sums.add(adapters[which].weight, x.weights[which]);
    sums.add(adapters[which].bias, x.column_sums[which]);
    sums.add(adapters[which].norm_weight, x.column_sums[which], problem.d);
    sums.add(adapters[which].norm_bias, x.column_sums[which], 2 * problem.d);
  }
  if (problem.learned()) {
    sum_heads(stream, x.mu, x.dmu);
    sum_heads(stream, x.phi, x.dphi);
    sums.add(gradients.mu, x.mu);
    sums.add(gradients.phi, x.phi);
  }
  sums.start(stream);
}

}  // namespace

void CudaOps::qkv_summary_forward(Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta, Tensor qkv,
                                  Tensor cosine, Tensor sine, const EvaParameters& parameters,
                                  const ChunkSummaryConfig& config) {
  checked_qkv(Device::cuda, qkv, q, k, v, cosine, sine);
  const Problem problem = checked_problem(Device::cuda, kappa, beta, q, k, v, parameters, config);
  check_head_dim(problem);
  summarise(stream_, kappa, beta, q, k, v, qkv, cosine, sine, parameters, problem, chunks_of(problem));
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
  const Chunks chunks{static_cast<int>(places.positions.dim(0) * H),
                      static_cast<int>(H),
                      static_cast<int>(P),
                      static_cast<int>(rows),
                      static_cast<int>(C),
                      static_cast<int>(P),
                      static_cast<int>(d),
                      static_cast<int>(C),
                      places.sequences.as<std::int32_t>(),
                      places.positions.as<std::int32_t>(),
                      static_cast<int>(S)};
  summarise(stream_, cache.kappa, cache.beta, cache.queries, cache.keys, cache.values, {}, {}, {}, parameters,
            problem, chunks);
}

void CudaOps::qkv_summary_backward(Tensor dqkv, const EvaParameters& gradients, Tensor dq, Tensor dk,
                                   Tensor dv, Tensor dkappa, Tensor dbeta, Tensor q, Tensor k, Tensor v,
                                   Tensor cosine, Tensor sine, const EvaParameters& parameters,
                                   const ChunkSummaryConfig& config) {
  checked_qkv(Device::cuda, dqkv, dq, dk, dv, cosine, sine);
  const Problem problem = checked_problem(Device::cuda, dkappa, dbeta, q, k, v, parameters, config);
  FLASHEVA_CHECK(matches_on_gpu(dq, q.dtype, q.shape));
  check_gradients(Device::cuda, gradients, parameters);
  check_head_dim(problem);
  const Chunks chunks = chunks_of(problem);
  const int blocks = backward_blocks(problem, multiprocessors_);
  const TrainedWeights trained{{bool(gradients.key_weight), bool(gradients.query_weight)}};
  const auto scratch = scratch_.carve<BackwardScratch>("the backward pass of the chunk summaries",
                                                       accumulation_type(k.dtype), problem, trained, blocks);
  summarise_backward(stream_, scratch, {dqkv, dq, dk, dv, dkappa, dbeta, q, k, v, cosine, sine}, parameters,
                     problem, chunks, blocks);
  if (problem.C > 0) add_gradients(stream_, gradients, scratch, problem);
}

}  // namespace flasheva
