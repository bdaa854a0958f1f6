// Every operation the model calls, with its contract. One implementation per device (cpu/, cuda/).
//
// Sizes: N tokens of a micro batch (N = B T), B sequences, T tokens, H heads, d head dimension, D = H d
// hidden size, V vocabulary, P chunk, C = T / P complete chunks. Types: activations and weights share one
// compute type (float32, bfloat16, float16; float64 for gradient checks). Sums, statistics, losses and
// gradients of parameters are float32 ("acc" below; float64 where the compute type is float64), whatever the
// compute type. Outputs are overwritten ("=") unless "+=" is written. Outputs never overlap inputs unless
// said. An argument marked "optional" may be an absent Tensor: an absent gradient costs no work.
// Preconditions (types, shapes) are checked first; a violation throws std::logic_error with file and line.
// One Ops is used by one thread at a time and parallelises inside; results do not depend on timing. Its
// tensors live on device(). On a GPU a call may return before the operation has happened; what follows on the
// same Ops sees it, and the host after copy() to it, synchronize() or an operation that returns a number.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "kernels/device_memory.h"
#include "kernels/tensor.h"
#include "kernels/visibility.h"

namespace flasheva {

enum class Adapter : std::uint8_t { none, linear, linear_layernorm, learned };
enum class Proposal : std::uint8_t { qk, k, zero };
enum class ChunkBias : std::uint8_t { none, log_chunk, learned };

// Parameters of one EVA layer, or their gradients; absent where the variant has none.
struct EvaParameters {
  Tensor key_weight, key_bias;            // (d, d), (d): adapters linear and linear_layernorm
  Tensor key_norm_weight, key_norm_bias;  // (d): linear_layernorm
  Tensor query_weight, query_bias;        // as key_*, with proposal qk
  Tensor query_norm_weight, query_norm_bias;
  Tensor mu, phi;     // (H, d): adapter learned
  Tensor chunk_bias;  // (H): chunk_bias learned
};

// Gaussian noise on the proposal: eps ~ N(0, I), clipped to [-clip, clip], from Philox keyed by all of this
// and (head, chunk, dimension), so that recomputation, resume and any number of ranks see the same noise.
struct ChunkNoise {
  bool enabled = false;
  float clip = 2.0f;
  std::uint64_t seed = 0;
  std::uint32_t layer = 0;
  // (2) int32, in the device's memory so that a recorded pass can be run for other micro batches: the
  // optimizer step of the whole run, and the place of the first sequence in the global batch.
  Tensor place;
};

struct ChunkSummaryConfig {
  std::int64_t chunk = 0;  // P
  Adapter adapter = Adapter::linear;
  Proposal proposal = Proposal::qk;
  ChunkNoise noise;
};

struct AttentionConfig {
  Visibility visibility;
  ChunkBias chunk_bias = ChunkBias::none;
  // Positions of the first query and of the first row of k and v; other than 0 where a prompt is taken in
  // segments. The backward pass wants 0.
  std::int64_t first_query = 0, first_key = 0;
};

// What a layer keeps of S sequences while they grow token by token: the last R tokens, as many as a query can
// see (Visibility::cache_rows), the queries of the chunk that is not finished, and a summary of each that is.
struct LayerCache {
  Tensor keys, values;  // (S, H, R, d): token m stands in row m mod R
  Tensor queries;       // (S, H, P, d): token m in row m mod P; kind eva
  Tensor kappa, beta;   // (S, H, C, d): kind eva, C = capacity in tokens / P, or absent where that is 0
};

// Which cached sequence each of N tokens belongs to, and its position there. No sequence stands here twice.
struct CachePlaces {
  Tensor sequences, positions;  // (N) int32
};

// One LayerNorm of x (N, D), and the gradients that its backward pass adds to. weight, bias (D).
struct Norm {
  Tensor out, weight, bias;
};
struct NormGradients {
  Tensor dweight, dbias;  // both present or both absent
  Tensor dout, weight;
};

// One of the tensors that AdamW updates, or a share of it; all are float32 (or float64) and of one size.
struct AdamWParameter {
  Tensor weight;
  Tensor low_precision;  // bfloat16 or float16, optional: = the new weight
  Tensor m, v, gradient;
  double weight_decay = 0;
};

// What the parameters of a step have in common.
struct AdamWConfig {
  double lr = 0, beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  std::int64_t step = 1;      // of this optimizer state, from 1: the bias correction's exponent
  double gradient_scale = 1;  // gradients are multiplied by it first (clipping)
};

// What operations work in beside their tensors, uint8; absent: nothing.
struct ScratchMemory {
  Tensor shared;      // (bytes)
  Tensor of_threads;  // (threads, bytes), on the CPU: a row of its own for each thread
};

// A recording of operations (Ops::replay). It must not outlive the Ops that made it.
class OperationGraph {
 public:
  virtual ~OperationGraph() = default;
};

class Ops {
 public:
  virtual ~Ops() = default;

  // --- memory and conversion --------------------------------------------------------------------------

  virtual Device device() const = 0;
  // Uninitialised memory of device(), aligned as MemoryPlan says; throws OutOfMemory. It may outlive the Ops.
  virtual DeviceMemory allocate(std::size_t bytes) = 0;
  // Bytes of device()'s memory that are taken, whoever took them; 0 where it is the host's.
  virtual std::size_t device_memory_taken() { return 0; }
  // out = in, of one type and shape, each in host memory or on device(). Host memory may be used again on
  // return.
  virtual void copy(Tensor out, Tensor in) = 0;
  // Host memory that device() reads and writes by itself, for start_copy; throws OutOfMemory. It may outlive
  // the Ops.
  virtual DeviceMemory allocate_on_host(std::size_t bytes) = 0;
  // As copy, in its turn among the operations. Host memory is at rest from then on until the host has waited:
  // for synchronize(), or for an operation that was called later.
  virtual void start_copy(Tensor out, Tensor in) = 0;
  // Returns when all operations have happened. By then, tokens beyond the vocabulary or a cache have thrown.
  virtual void synchronize() = 0;

  // Runs `body`, which calls operations of this Ops: with one `graph`, null at first, the same ones every
  // time, of the same tensors and settings, and none for which the host waits. A GPU records them in the
  // second call and starts the recording from then on, without `body`.
  virtual void replay(std::unique_ptr<OperationGraph>& /*graph*/, const std::function<void()>& body) {
    body();
  }

  // Memory that operations need while they run: they take it from `memory` from now on, and their own only
  // where that is too little, or absent, as at first. It must stay until other memory is lent, or none.
  virtual void lend_scratch(const ScratchMemory& memory) = 0;
  // Of a GPU: how finely operations cut their work, and so what they need to add it up again.
  virtual int multiprocessors() const { return 0; }

  // Whether products of float32 matrices may read their operands in TF32, of which the mantissa has 10 bits:
  // several times as fast on tensor cores. At first they may not; a CPU never does.
  virtual void allow_tf32(bool /*allowed*/) {}

  virtual void zero(Tensor out) = 0;             // out = 0
  virtual void cast(Tensor out, Tensor in) = 0;  // out = in; floating types each to each

  // out = standard deviation x N(0, 1), from Philox keyed by (seed, stream, element); out float32 or float64.
  virtual void fill_normal(Tensor out, double standard_deviation, std::uint64_t seed,
                           std::uint32_t stream) = 0;

  // --- embedding ---------------------------------------------------------------------------------------

  // out (N, D) = table (V, D)[tokens (N) int32]; every token is in 0 .. V-1.
  virtual void embedding_forward(Tensor out, Tensor tokens, Tensor table) = 0;
  // dtable (V, D) acc += scatter of dout (N, D).
  virtual void embedding_backward(Tensor dtable, Tensor dout, Tensor tokens) = 0;

  // --- LayerNorm: out = (x - mean) * rstd * weight + bias over the last dimension ------------------------

  // One norm of x, or two that read it once: `second` is {} where there is none.

  // out (N, D) = of each norm; mean (N) acc =, rstd (N) acc =; rstd = 1 / sqrt(variance + eps), biased
  // variance.
  virtual void layernorm_forward(const Norm& norm, const Norm& second, Tensor mean, Tensor rstd, Tensor x,
                                 double eps) = 0;
  // dx (N, D) += of both, optional; dweight, dbias (D) acc += of each.
  virtual void layernorm_backward(Tensor dx, const NormGradients& norm, const NormGradients& second, Tensor x,
                                  Tensor mean, Tensor rstd) = 0;

  // --- linear: out (N, O) = x (N, I) weight (O, I)^T + bias (O) ------------------------------------------

  virtual void linear_forward(Tensor out, Tensor x, Tensor weight, Tensor bias /* optional */) = 0;
  // dx (N, I) = dout (N, O) weight (O, I).
  virtual void linear_backward_input(Tensor dx, Tensor dout, Tensor weight) = 0;
  // dweight (O, I) acc += dout^T x, optional; dbias (O) acc += column sums of dout, optional.
  virtual void linear_backward_weight(Tensor dweight, Tensor dbias, Tensor dout, Tensor x) = 0;

  // --- elementwise ---------------------------------------------------------------------------------------

  // out = x/2 (1 + erf(x / sqrt 2)), any shape.
  virtual void gelu_forward(Tensor out, Tensor x) = 0;
  // dx (N, I) = dout * gelu'(x); dx may be dout. dbias (I) acc += column sums of dx, optional: the gradient
  // of the bias that the linear layer before has added to x.
  virtual void gelu_backward(Tensor dx, Tensor dbias, Tensor dout, Tensor x) = 0;
  // out = x + a + b; b optional. out may be x.
  virtual void residual(Tensor out, Tensor x, Tensor a, Tensor b) = 0;

  // --- query, key, value ---------------------------------------------------------------------------------

  // Splits qkv (B, T, 3D), rows of the projection ordered per head [q_h | k_h | v_h], into q, k, v
  // (B, H, T, d) and rotates the first 2R dimensions of q and k, half against half:
  //     [x1 | x2] -> [x1 cos - x2 sin | x2 cos + x1 sin]
  // cosine, sine (>= T, R) acc, row t for position t; absent when R = 0.
  virtual void qkv_rotary_forward(Tensor q, Tensor k, Tensor v, Tensor qkv, Tensor cosine, Tensor sine) = 0;
  // dqkv (B, T, 3D) = the inverse rotation of dq, dk, dv (B, H, T, d), merged.
  virtual void qkv_rotary_backward(Tensor dqkv, Tensor dq, Tensor dk, Tensor dv, Tensor cosine,
                                   Tensor sine) = 0;

  // --- chunk summaries (design of FlashEVA, 1.3) -----------------------------------------------------------
  //     kbar_c, qbar_c = means of k, q over chunk c        kappa_c = A_k(kbar_c)
  //     omega_c = mu_c + clip(eps_c)                        mu_c = A_q(qbar_c) + kappa_c | kappa_c | 0
  //     p_m = softmax over m in chunk of s (omega_c . k_m - |k_m|^2 / 2),  s = 1/sqrt(d)
  //     beta_c = sum_m p_m v_m
  // Adapter learned: kappa_c = sum_m softmax_m(mu . k_m) k_m and mu_c = phi.

  // qkv_rotary_forward and, in the same pass over the tokens, kappa, beta (B, H, C, d) =. C may be 0.
  virtual void qkv_summary_forward(Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta, Tensor qkv,
                                   Tensor cosine, Tensor sine, const EvaParameters& parameters,
                                   const ChunkSummaryConfig& config) = 0;
  // dqkv (B, T, 3D) = qkv_rotary_backward of dq, dk, dv (B, H, T, d), which may be used up, plus what reaches
  // q, k, v through the summaries. gradients (acc) +=, each optional; chunk_bias is not touched.
  virtual void qkv_summary_backward(Tensor dqkv, const EvaParameters& gradients, Tensor dq, Tensor dk,
                                    Tensor dv, Tensor dkappa, Tensor dbeta, Tensor q, Tensor k, Tensor v,
                                    Tensor cosine, Tensor sine, const EvaParameters& parameters,
                                    const ChunkSummaryConfig& config) = 0;

  // --- attention: full, sliding, eva (1.2, 1.4) ------------------------------------------------------------
  //     o_n = softmax over [ s q_n.k_m, m in a(n)..n ; s q_n.kappa_c + bias, c < visible_chunks(n) ]
  //           applied to [ v_m ; beta_c ],  s = 1/sqrt(d)
  // Blocked with one online softmax over both key sources: no (T, T) or (T, C) matrix in memory.

  // out (B, T, H d) =, log_sum_exp (B, H, T) acc =, of the scaled and biased logits. kappa, beta (B, H, C, d)
  // for kind eva with C > 0, absent otherwise; chunk_bias (H) with ChunkBias::learned, absent otherwise.
  // k and v (B, H, S, d) hold positions config.first_key on and reach at least to the last query; C may be
  // larger than what the queries see.
  virtual void attention_forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v, Tensor kappa,
                                 Tensor beta, Tensor chunk_bias, const AttentionConfig& config) = 0;
  // dq, dk, dv (B, H, T, d) =; dkappa, dbeta (B, H, C, d) =; dchunk_bias (H) acc +=, optional.
  virtual void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dkappa, Tensor dbeta,
                                  Tensor dchunk_bias, Tensor dout, Tensor out, Tensor log_sum_exp, Tensor q,
                                  Tensor k, Tensor v, Tensor kappa, Tensor beta, Tensor chunk_bias,
                                  const AttentionConfig& config) = 0;

  // --- attention over a cache ------------------------------------------------------------------------------
  // One token of each of N sequences goes on where its cache ends: cache_append, with kind eva
  // chunk_summary_cached, then attention_cached. The results are those of the whole sequence at that token.

  // q (N, H, d) = the rotated queries of qkv (N, 3D); keys, values and queries of the cache = at their
  // places. cosine, sine as in qkv_rotary_forward.
  virtual void cache_append(Tensor q, const LayerCache& cache, Tensor qkv, Tensor cosine, Tensor sine,
                            const CachePlaces& places) = 0;
  // Summaries of the cache = for every token of `places` that finishes a chunk. Noise is off.
  virtual void chunk_summary_cached(const LayerCache& cache, const EvaParameters& parameters,
                                    const ChunkSummaryConfig& config, const CachePlaces& places) = 0;
  // out (N, H d) = attention of queries q (N, H, d), the newest token of their sequences, to what is cached.
  virtual void attention_cached(Tensor out, Tensor q, const LayerCache& cache, Tensor chunk_bias,
                                const AttentionConfig& config, const CachePlaces& places) = 0;

  // A prompt is taken in segments. cache_store: the cache of `sequence` = tokens first_position on, q, k, v
  // (1, H, T, d), and their chunks kappa, beta (1, H, T / P, d), absent where there is none; first_position
  // is a multiple of P. Tokens that later ones of the segment push out are left out.
  virtual void cache_store(const LayerCache& cache, std::int64_t sequence, std::int64_t first_position,
                           Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta) = 0;
  // keys, values (1, H, O + T, d) = the last O tokens before first_position from the cache of `sequence`,
  // then k, v (1, H, T, d). O <= R.
  virtual void cache_window(Tensor keys, Tensor values, const LayerCache& cache, std::int64_t sequence,
                            std::int64_t first_position, Tensor k, Tensor v) = 0;

  // --- classifier ------------------------------------------------------------------------------------------

  // losses (N) acc = cross-entropy in nats of logits (N, V) against targets (N) int32, 0 where mask (N)
  // uint8, optional, is 0. correct (N) uint8, optional, = 1 where the target has the largest logit (and mask
  // is not 0), first of equals.
  virtual void cross_entropy_forward(Tensor losses, Tensor correct, Tensor logits, Tensor targets,
                                     Tensor mask) = 0;
  // The same losses, and logits (N, V) = their gradient: (softmax(logits) - onehot(target)) * scale, in
  // place; rows whose mask is 0 become 0. scale (1) acc, in the device's memory so that a recorded pass can
  // be run with others.
  virtual void cross_entropy_backward(Tensor logits, Tensor losses, Tensor targets, Tensor mask,
                                      Tensor scale) = 0;
  // tokens (N) int32 = the place of the largest logit in each row of logits (N, V), first of equals; -1 where
  // the row has a NaN. V > 0.
  virtual void most_likely(Tensor tokens, Tensor logits) = 0;

  // --- values that are not finite --------------------------------------------------------------------------

  // first (1) int32 = the index of the first of `tensors` (one or more, each of a floating type) that has an
  // element which is not finite; -1 where the last of them has none, for then none of the others is read:
  // each is computed from the one before it.
  virtual void first_not_finite(Tensor first, std::span<const Tensor> tensors) = 0;

  // --- norms ----------------------------------------------------------------------------------------------

  // sums[i] = the sum of the squares of all elements of tensors[i] (each of a floating type), added
  // up in float64: finite if and only if all of them are. The host waits once for all of them.
  virtual void sums_of_squares(std::span<double> sums, std::span<const Tensor> tensors) = 0;
  double sum_of_squares(Tensor x) {
    double sum = 0;
    sums_of_squares({&sum, 1}, {&x, 1});
    return sum;
  }
  // The sum of the squares of x - y, tensors of one type and shape, in float64.
  virtual double squared_distance(Tensor x, Tensor y) = 0;

  // --- optimizer ------------------------------------------------------------------------------------------

  // PyTorch's AdamW on each of many parameters, g = gradient * gradient_scale:
  //     w -= lr wd w;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
  //     w -= lr m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps)
  // All have the types of the first, and all or none a copy in low precision. What becomes of an element
  // depends on nothing but its own numbers and the config.
  virtual void adamw(std::span<const AdamWParameter> parameters, const AdamWConfig& config) = 0;
};

// `threads` 0: as many as OpenMP would take; otherwise their number for the whole process from now on.
std::unique_ptr<Ops> make_cpu_ops(int threads = 0);
// On GPU number `gpu` of this machine (CUDA_VISIBLE_DEVICES included); cuda/ alone has it.
std::unique_ptr<Ops> make_cuda_ops(int gpu = 0);

}  // namespace flasheva
