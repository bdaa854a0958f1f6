// Attention of kinds full, sliding and eva, forward and backward, in one blocked pass over two key sources:
//
//     o_n = softmax over [ s q_n.k_m , m in a(n)..n ;  s q_n.kappa_c + bias , c < visible_chunks(n) ]
//           applied to [ v_m ; beta_c ],  s = 1/sqrt(d)
//
// with the online softmax of Milakov and Gimelshein (2018) and the recomputing backward of Dao et al. (2022).
// Products take elements E (attention_operands.h) and add up in R.
#include <omp.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "kernels/check.h"
#include "kernels/cpu/attention_bias.h"
#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/attention_operands.h"
#include "kernels/cpu/attention_scratch.h"
#include "kernels/cpu/attention_softmax.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/bf16_pairs.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/scratch_sizes.h"
#include "kernels/cpu/simd.h"

namespace flasheva {

namespace {

using namespace cpu_attention;

constexpr std::int64_t worth_sharing = 16384;  // elements of q from which other threads are woken

template <class R>
inline constexpr R ln_2 = std::numbers::ln2_v<R>;

template <class R>
R softmax_scale(std::int64_t d) {
  return R(1) / std::sqrt(static_cast<R>(d));
}

// Calls f(begin, end) for every key block that the queries of the block see a part of.
template <class R, class F>
void for_key_blocks(const Seen<R>& seen, const QueryBlock& block, const F& f) {
  const std::int64_t end = seen.panel_end(block.padded - panel<R>);
  for (std::int64_t begin = seen.panel_first(0); begin < end; begin += key_block)
    f(begin, std::min(begin + key_block, end));
}

// --- forward --------------------------------------------------------------------------------------------

// Adds what the block's queries see of one source.
template <class E, class R>
void attend(const ForwardScratch<E>& scratch, const Source<E>& source, const Seen<R>& seen,
            const QueryBlock& block, R bias, std::int64_t d) {
  const std::int64_t row = row_stride<E>(d), width = padded_width<E>(d);
  const std::int64_t key_row = along_row<E>(d), depth = elements<E>(d);
  for_key_blocks(seen, block, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = 0; p < block.padded; p += panel<E>) {
      const KeyRange keys = keys_of_panel(seen, p, begin, end);
      if (keys.empty()) continue;
      R *s = scratch.logits, *out = scratch.out + p * row;
      multiply<E>(Store::overwrite, s, panel<E>, {source.keys + keys.begin * key_row, key_row, 1},
                  scratch.queries_t + p * depth, panel<E>, keys.count(), panel<E>, depth);
      mask(s, panel<E>, seen, p, keys);
      softmax_step(s, keys.count(), softmax_scale<R>(d) * log2_e<R>, bias, scratch.max + p, scratch.sum + p,
                   out, d);
      multiply<E>(Store::accumulate, out, row, {weights_down(scratch, s, keys.count()), 1, panel<E>},
                  source.values + keys.begin / steps<E> * row, row, panel<E>, width,
                  elements<E>(keys.count()));
    }
  });
}

// out (T, d; rows H d apart), log_sum_exp (T): the rows of one block of queries of one head.
template <class T, class E, class R>
void forward_block(T* out, R* log_sum_exp, const T* q, const ForwardScratch<E>& scratch,
                   const Source<E>& tokens, const Source<E>& chunks, std::int64_t begin, R bias,
                   const Sizes& sizes, const AttentionConfig& config) {
  const QueryBlock block = query_block_at<R>(begin, sizes.T);
  const std::int64_t d = sizes.d, row = row_stride<E>(d);
  transpose_queries(scratch.queries_t, scratch.queries, q + begin * d, d, block, d);
  std::fill(scratch.out, scratch.out + block.padded * row, R(0));
  std::fill(scratch.sum, scratch.sum + block.padded, R(0));
  // Finite, so that a panel whose queries have seen nothing yet subtracts no infinities.
  std::fill(scratch.max, scratch.max + block.padded, std::numeric_limits<R>::lowest() / 2);

  attend(scratch, tokens, seen_tokens<R>(config, block), block, R(0), d);
  if (sizes.C > 0) attend(scratch, chunks, seen_chunks<R>(config, block), block, bias, d);

  for (std::int64_t i = 0; i < block.count; ++i) {
    const std::int64_t n = block.begin + i;
    narrow_rows(out + n * sizes.H * d, 0, scratch.out + i * row, 1, d, 1 / scratch.sum[i]);
    log_sum_exp[n] = (scratch.max[i] + std::log2(scratch.sum[i])) * ln_2<R>;
  }
}

template <class T, class E, class R = SumOf<E>>
void forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta,
             Tensor chunk_bias, const Sizes& sizes, const AttentionConfig& config, CpuScratch& memory) {
  const std::int64_t heads = sizes.B * sizes.H, blocks = (sizes.T + query_block - 1) / query_block;
  // From one head to the next; of keys and chunks there may be more than the queries see.
  const std::int64_t query_stride = sizes.T * sizes.d, key_stride = k.dim(2) * sizes.d;
  const std::int64_t chunk_stride = kappa ? kappa.dim(2) * sizes.d : 0;
  // Heads are cut, each block of queries to one part, where whole heads would leave threads without work.
  const std::int64_t threads = omp_get_max_threads();
  const std::int64_t parts = std::min(blocks, threads / std::gcd(threads, heads));
  const ThreadMemory of_threads = memory.of_threads<ForwardScratch<E>>(sizes, q.dtype);
#pragma omp parallel for schedule(dynamic) if (q.size() >= worth_sharing)
  for (std::int64_t task = 0; task < heads * parts; ++task) {
    const std::int64_t head = task / parts, b = head / sizes.H, h = head % sizes.H;
    const auto scratch = of_threads.carve<ForwardScratch<E>>(sizes, q.dtype);
    const std::int64_t d = sizes.d, behind = sizes.S * row_stride<E>(d);
    const Source<E> tokens{along(scratch.keys, k.as<T>() + head * key_stride, sizes.S, d),
                           down(scratch.values, v.as<T>() + head * key_stride, sizes.S, d)};
    const Source<E> chunks{along(scratch.keys + behind, kappa.as<T>() + head * chunk_stride, sizes.C, d),
                           down(scratch.values + behind, beta.as<T>() + head * chunk_stride, sizes.C, d)};
    const R bias = chunk_bias_of<T>(h, chunk_bias, config);
    for (std::int64_t i = task % parts; i < blocks; i += parts)
      forward_block<T, E>(out.as<T>() + (b * sizes.T * sizes.H + h) * sizes.d,
                          log_sum_exp.as<R>() + head * sizes.T, q.as<T>() + head * query_stride, scratch,
                          tokens, chunks, i * query_block, bias, sizes, config);
  }
}

// --- backward -------------------------------------------------------------------------------------------
//     P = exp(logit - log_sum_exp)      dS = s P * (dP - D),  dP = dO V^T,  D = rowsum(dO * O)
//     dV = P^T dO      dQ = dS K      dK = dS^T Q      dbias = sum of dS / s over the chunks

// P^T, dS^T and dQ of one panel of queries against keys begin .. end - 1 of a source. The sum of dS.
template <class E, class R>
R backward_panel(const BackwardScratch<E>& scratch, const BackwardSource<E>& source, const Seen<R>& seen,
                 std::int64_t p, std::int64_t begin, std::int64_t end, R bias, std::int64_t d) {
  const std::int64_t row = row_stride<E>(d), width = padded_width<E>(d);
  const std::int64_t key_row = along_row<E>(d), depth = elements<E>(d);
  const KeyRange keys = keys_of_panel(seen, p, begin, end);
  const auto zero = [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t j = from; j < to; ++j)
      for (E* x : {scratch.weights, scratch.dlogits})
        std::fill_n(x + (j - begin) * scratch.weights_row + p / steps<E>, panel<E> / steps<E>, E{});
  };
  if (keys.empty()) return zero(begin, end), R(0);
  zero(begin, keys.begin);
  zero(keys.end, end);

  const PanelWeights<E> of(scratch, p, keys.begin - begin);
  const R scale = softmax_scale<R>(d);
  multiply<E>(Store::overwrite, of.weights, of.row, {source.keys + keys.begin * key_row, key_row, 1},
              scratch.queries_t + p * depth, panel<E>, keys.count(), panel<E>, depth);
  multiply<E>(Store::overwrite, of.dlogits, of.row, {source.values + keys.begin * key_row, key_row, 1},
              scratch.dout_t + p * depth, panel<E>, keys.count(), panel<E>, depth);
  mask(of.weights, of.row, seen, p, keys);
  const R sum = weights_and_dlogits(of.weights, of.dlogits, of.row, keys.count(), scale * log2_e<R>, bias,
                                    scratch.log_sum_exp + p, scale, scratch.dout_dot_out + p);
  multiply<E>(Store::accumulate, scratch.dqueries + p * row, row, of.finish(scratch, keys.count()),
              source.keys_down + keys.begin / steps<E> * row, row, panel<E>, width,
              elements<E>(keys.count()));
  return sum;
}

// dK and dV of keys begin .. end - 1 from the P^T and dS^T of a block of queries.
template <class E, class R>
void accumulate_dkeys(const BackwardSource<E>& source, const BackwardScratch<E>& scratch, const Seen<R>& seen,
                      const QueryBlock& block, std::int64_t begin, std::int64_t end, std::int64_t d) {
  const std::int64_t row = row_stride<E>(d), width = padded_width<E>(d), weights_row = scratch.weights_row;
  std::int64_t first = 0, last = 0;  // the queries that see some key of the strip
  for (std::int64_t j = begin; j < end; j += tile_rows) {
    const std::int64_t rows = std::min<std::int64_t>(tile_rows, end - j);
    while (first < block.count && seen.end[first] <= j) ++first;
    while (last < block.count && seen.first[last] < j + rows) ++last;
    if (first >= last) continue;
    const std::int64_t from = first / steps<E>, depth = elements<E>(last) - from;
    const std::int64_t at = (j - begin) * weights_row + from;
    multiply<E>(Store::accumulate, source.dvalues + j * row, row, {scratch.weights + at, weights_row, 1},
                scratch.dout + from * row, row, rows, width, depth);
    multiply<E>(Store::accumulate, source.dkeys + j * row, row, {scratch.dlogits + at, weights_row, 1},
                scratch.queries + from * row, row, rows, width, depth);
  }
}

// One source's share of the gradients, for one block of queries. The sum of dS.
template <class E, class R>
R attend_backward(const BackwardScratch<E>& scratch, const BackwardSource<E>& source, const Seen<R>& seen,
                  const QueryBlock& block, R bias, std::int64_t d) {
  R sum = 0;
  for_key_blocks(seen, block, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = 0; p < block.padded; p += panel<E>)
      sum += backward_panel(scratch, source, seen, p, begin, end, bias, d);
    accumulate_dkeys(source, scratch, seen, block, begin, end, d);
  });
  return sum;
}

// One head's tensors, at its first element; the gradients of absent chunks are null.
template <class T, class R>
struct BackwardHead {
  T *dq, *dk, *dv, *dkappa, *dbeta;  // (T, d), (C, d)
  const T *dout, *out;               // (T, d), rows H d apart
  const R* log_sum_exp;              // (T)
  const T *q, *k, *v, *kappa, *beta;
};

// dq of a block of queries; the sources' gradients grow. The sum of dS over the chunks, not times s.
template <class T, class E, class R = SumOf<E>>
R backward_block(const BackwardHead<T, R>& head, const BackwardScratch<E>& scratch,
                 const BackwardSource<E>& tokens, const BackwardSource<E>& chunks, std::int64_t begin, R bias,
                 const Sizes& sizes, const AttentionConfig& config) {
  const QueryBlock block = query_block_at<R>(begin, sizes.T);
  const std::int64_t d = sizes.d, out_row = sizes.H * d;
  const R scale = softmax_scale<R>(d);
  const T *dout = head.dout + begin * out_row, *out = head.out + begin * out_row;
  load_queries(scratch.queries_t, scratch.queries, head.q + begin * d, d, block, d);
  load_queries(scratch.dout_t, scratch.dout, dout, out_row, block, d);
  for (R* x : {scratch.dout_dot_out, scratch.log_sum_exp}) std::fill(x, x + block.padded, R(0));
  for (std::int64_t i = 0; i < block.count; ++i) {
    R* const dout_row = scratch.dqueries;
    widen_rows(dout_row, dout + i * out_row, out_row, 1, d);
    scratch.dout_dot_out[i] = dot(dout_row, out + i * out_row, d) * scale;
    scratch.log_sum_exp[i] = head.log_sum_exp[begin + i] * log2_e<R>;
  }
  std::fill(scratch.dqueries, scratch.dqueries + block.padded * row_stride<R>(d), R(0));

  attend_backward(scratch, tokens, seen_tokens<R>(config, block), block, R(0), d);
  R dbias = 0;
  if (sizes.C > 0)
    dbias = attend_backward(scratch, chunks, seen_chunks<R>(config, block), block, bias, d) / scale;
  narrow_rows(head.dq + begin * d, d, scratch.dqueries, block.count, d);
  return dbias;
}

// All gradients of one head but that of its chunk bias, which is returned.
template <class T, class E, class R = SumOf<E>>
R backward_head(const BackwardHead<T, R>& head, const BackwardScratch<E>& scratch, R bias, const Sizes& sizes,
                const AttentionConfig& config) {
  const std::int64_t length = sizes.T, C = sizes.C, d = sizes.d;
  const auto source = [&](std::int64_t at, T* dkeys, T* dvalues, const T* keys, const T* values,
                          std::int64_t count) {
    const E* const along_keys = along(scratch.keys + at, keys, count, d);
    const E* const along_values = along(scratch.values + at, values, count, d);
    const E* keys_down = along_keys;
    if constexpr (in_pairs<E>) keys_down = down(scratch.keys_down + at, keys, count, d);
    return BackwardSource<E>{{along_keys, along_values},
                             keys_down,
                             begin_gradient(scratch.dkeys + at, dkeys, count, d),
                             begin_gradient(scratch.dvalues + at, dvalues, count, d)};
  };
  const BackwardSource<E> tokens = source(0, head.dk, head.dv, head.k, head.v, length);
  const BackwardSource<E> chunks =
      source(length * row_stride<E>(d), head.dkappa, head.dbeta, head.kappa, head.beta, C);
  R dbias = 0;
  for (std::int64_t begin = 0; begin < length; begin += query_block)
    dbias += backward_block<T, E>(head, scratch, tokens, chunks, begin, bias, sizes, config);
  finish_gradient(head.dk, tokens.dkeys, length, d);
  finish_gradient(head.dv, tokens.dvalues, length, d);
  finish_gradient(head.dkappa, chunks.dkeys, C, d);
  finish_gradient(head.dbeta, chunks.dvalues, C, d);
  return dbias;
}

template <class T, class E, class R = SumOf<E>>
void backward(Tensor dq, Tensor dk, Tensor dv, Tensor dkappa, Tensor dbeta, Tensor dchunk_bias, Tensor dout,
              Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta,
              Tensor chunk_bias, const Sizes& sizes, const AttentionConfig& config, CpuScratch& memory) {
  R* const dbias = memory.shared<ChunkBiasGradients<R>>(sizes).of_heads;
  const ThreadMemory of_threads = memory.of_threads<BackwardScratch<E>>(sizes, q.dtype);
#pragma omp parallel for schedule(dynamic) if (q.size() >= worth_sharing)
  for (std::int64_t i = 0; i < sizes.B * sizes.H; ++i) {
    const std::int64_t b = i / sizes.H, h = i % sizes.H;
    const std::int64_t tokens = i * sizes.T * sizes.d, chunks = i * sizes.C * sizes.d;
    const std::int64_t merged = (b * sizes.T * sizes.H + h) * sizes.d;
    const BackwardHead<T, R> head{dq.as<T>() + tokens,    dk.as<T>() + tokens,
                                  dv.as<T>() + tokens,    dkappa.as<T>() + chunks,
                                  dbeta.as<T>() + chunks, dout.as<T>() + merged,
                                  out.as<T>() + merged,   log_sum_exp.as<R>() + i * sizes.T,
                                  q.as<T>() + tokens,     k.as<T>() + tokens,
                                  v.as<T>() + tokens,     kappa.as<T>() + chunks,
                                  beta.as<T>() + chunks};
    dbias[i] = backward_head<T, E>(head, of_threads.carve<BackwardScratch<E>>(sizes, q.dtype),
                                   chunk_bias_of<T>(h, chunk_bias, config), sizes, config);
  }
  if (dchunk_bias)
    for (std::int64_t i = 0; i < sizes.B * sizes.H; ++i) dchunk_bias.as<R>()[i % sizes.H] += dbias[i];
}

// --- the elements of the products -----------------------------------------------------------------------

// Calls f(T{}, E{}) with the type of the tensors and that of the products' elements.
template <class F>
void dispatch_products(DType dtype, Bf16Products products, const F& f) {
  dispatch(dtype, [&]<class T>(T type) {
    if constexpr (std::is_same_v<T, bf16>) {
      if (products == Bf16Products::pairs) return f(type, simd::Pair<Bf16Products::pairs>{});
      if (products == Bf16Products::emulated) return f(type, simd::Pair<Bf16Products::emulated>{});
    }
    f(type, Accumulator<T>{});
  });
}

}  // namespace

ScratchBytes attention_forward_scratch(DType dtype, const AttentionSizes& sizes) {
  ScratchBytes bytes;
  dispatch_products(dtype, best_bf16_products(), [&]<class T, class E>(T, E) {
    bytes.of_a_thread = bytes_of_layout<ForwardScratch<E>>(sizes, dtype);
  });
  return bytes;
}

ScratchBytes attention_backward_scratch(DType dtype, const AttentionSizes& sizes) {
  ScratchBytes bytes;
  dispatch_products(dtype, best_bf16_products(), [&]<class T, class E>(T, E) {
    bytes = {bytes_of_layout<ChunkBiasGradients<SumOf<E>>>(sizes),
             bytes_of_layout<BackwardScratch<E>>(sizes, dtype)};
  });
  return bytes;
}

void CpuOps::attention_forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v, Tensor kappa,
                               Tensor beta, Tensor chunk_bias, const AttentionConfig& config) {
  const Sizes sizes =
      check_attention(Device::cpu, out, log_sum_exp, q, k, v, kappa, beta, chunk_bias, config);
  dispatch_products(q.dtype, bf16_products_, [&]<class T, class E>(T, E) {
    forward<T, E>(out, log_sum_exp, q, k, v, kappa, beta, chunk_bias, sizes, config, scratch_);
  });
}

void CpuOps::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dkappa, Tensor dbeta,
                                Tensor dchunk_bias, Tensor dout, Tensor out, Tensor log_sum_exp, Tensor q,
                                Tensor k, Tensor v, Tensor kappa, Tensor beta, Tensor chunk_bias,
                                const AttentionConfig& config) {
  const Sizes sizes = check_attention_backward(Device::cpu, dq, dk, dv, dkappa, dbeta, dchunk_bias, dout, out,
                                               log_sum_exp, q, k, v, kappa, beta, chunk_bias, config);
  dispatch_products(q.dtype, bf16_products_, [&]<class T, class E>(T, E) {
    backward<T, E>(dq, dk, dv, dkappa, dbeta, dchunk_bias, dout, out, log_sum_exp, q, k, v, kappa, beta,
                   chunk_bias, sizes, config, scratch_);
  });
}

}  // namespace flasheva
