// Attention of kinds full, sliding and eva, forward and backward, in one blocked pass over two key sources:
//
//     o_n = softmax over [ s q_n.k_m , m in a(n)..n ;  s q_n.kappa_c + bias , c < visible_chunks(n) ]
//           applied to [ v_m ; beta_c ],  s = 1/sqrt(d)
//
// with the online softmax of Milakov and Gimelshein (2018) and the recomputing backward of Dao et al. (2022).
// Logits live in units of log2: q carries s log2(e).
#include <omp.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "kernels/check.h"
#include "kernels/cpu/attention_bias.h"
#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/attention_softmax.h"
#include "kernels/cpu/attention_source.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/carver.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/simd.h"

namespace flasheva {

namespace {

using namespace attention;

constexpr std::int64_t worth_sharing = 16384;  // elements of q from which other threads are woken

template <class R>
inline constexpr R ln_2 = std::numbers::ln2_v<R>;

template <class R>
R softmax_scale(const Sizes& sizes) {
  return R(1) / std::sqrt(static_cast<R>(sizes.d));
}

// out (padded queries, d padded) = the block's rows of `in` (T rows, in_row apart) * scale; rows that pad are
// 0.
template <class R, class T>
void gather_queries(R* out, const T* in, std::int64_t in_row, const QueryBlock& block, std::int64_t d,
                    R scale) {
  widen_rows(out, in + block.begin * in_row, in_row, block.count, d, scale);
  const std::int64_t row = row_stride<R>(d);
  std::fill(out + block.count * row, out + block.padded * row, R(0));
}

// Calls f(begin, end) for every key block that the queries of the block see a part of.
template <class R, class F>
void for_key_blocks(const Seen<R>& seen, const QueryBlock& block, const F& f) {
  const std::int64_t end = seen.panel_end(block.padded - panel<R>);
  for (std::int64_t begin = seen.panel_first(0); begin < end; begin += key_block)
    f(begin, std::min(begin + key_block, end));
}

// --- forward --------------------------------------------------------------------------------------------

template <class R>
struct ForwardScratch {
  R *keys, *values;        // (S + C, d) of one head, where they are copied
  R *queries, *queries_t;  // (query_block, d) and its transposed panels
  R* out;                  // (query_block, d), not yet divided by `sum`
  R *max, *sum;            // (query_block): of the logits and of exp2(logit - max), so far
  R* weights;              // (key_block, panel)

  ForwardScratch(Carver& carver, const Sizes& sizes) {
    const std::int64_t row = row_stride<R>(sizes.d);
    for (R** p : {&keys, &values}) *p = carver.take<R>(sizes.keys() * row);
    for (R** p : {&queries, &queries_t, &out}) *p = carver.take<R>(query_block * row);
    for (R** p : {&max, &sum}) *p = carver.take<R>(query_block);
    weights = carver.take<R>(key_block * panel<R>);
  }
};

// Adds what the block's queries see of one source.
template <class R>
void attend(const ForwardScratch<R>& scratch, const Source<R>& source, const Seen<R>& seen,
            const QueryBlock& block, R bias, std::int64_t d) {
  const std::int64_t row = row_stride<R>(d), width = padded_width<R>(d);
  for_key_blocks(seen, block, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = 0; p < block.padded; p += panel<R>) {
      const KeyRange keys = keys_of_panel(seen, p, begin, end);
      if (keys.empty()) continue;
      R* s = scratch.weights;
      R* out = scratch.out + p * row;
      multiply<R>(Store::overwrite, s, panel<R>, {source.keys + keys.begin * row, row, 1},
                  scratch.queries_t + p * width, panel<R>, keys.count(), panel<R>, d);
      mask(s, panel<R>, seen, p, keys);
      softmax_step(s, keys.count(), bias, scratch.max + p, scratch.sum + p, out, d);
      multiply<R>(Store::accumulate, out, row, {s, 1, panel<R>}, source.values + keys.begin * row, row,
                  panel<R>, width, keys.count());
    }
  });
}

// out (T, d; rows H d apart), log_sum_exp (T): the rows of one block of queries of one head.
template <class T, class R = Accumulator<T>>
void forward_block(T* out, R* log_sum_exp, const T* q, const ForwardScratch<R>& scratch,
                   const Sources<R>& sources, std::int64_t begin, R bias, const Sizes& sizes,
                   const AttentionConfig& config) {
  const QueryBlock block = query_block_at<R>(begin, sizes.T);
  const std::int64_t d = sizes.d, row = row_stride<R>(d);
  gather_queries(scratch.queries, q, d, block, d, softmax_scale<R>(sizes) * log2_e<R>);
  transpose_panels(scratch.queries_t, scratch.queries, block.padded, d);
  std::fill(scratch.out, scratch.out + block.padded * row, R(0));
  std::fill(scratch.sum, scratch.sum + block.padded, R(0));
  // Finite, so that a panel whose queries have seen nothing yet subtracts no infinities.
  std::fill(scratch.max, scratch.max + block.padded, std::numeric_limits<R>::lowest() / 2);

  attend(scratch, sources.tokens, seen_tokens<R>(config, block), block, R(0), d);
  if (sizes.C > 0) attend(scratch, sources.chunks, seen_chunks<R>(config, block), block, bias, d);

  for (std::int64_t i = 0; i < block.count; ++i) {
    const std::int64_t n = block.begin + i;
    narrow_rows(out + n * sizes.H * d, 0, scratch.out + i * row, 1, d, 1 / scratch.sum[i]);
    log_sum_exp[n] = (scratch.max[i] + std::log2(scratch.sum[i])) * ln_2<R>;
  }
}

template <class T, class R = Accumulator<T>>
void forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta,
             Tensor chunk_bias, const Sizes& sizes, const AttentionConfig& config) {
  const std::int64_t heads = sizes.B * sizes.H, blocks = (sizes.T + query_block - 1) / query_block;
  // From one head to the next; of keys and chunks there may be more than the queries see.
  const std::int64_t query_stride = sizes.T * sizes.d, key_stride = k.dim(2) * sizes.d;
  const std::int64_t chunk_stride = kappa ? kappa.dim(2) * sizes.d : 0;
  // Heads are cut, each block of queries to one part, where whole heads would leave threads without work.
  const std::int64_t threads = omp_get_max_threads();
  const std::int64_t parts = std::min(blocks, threads / std::gcd(threads, heads));
#pragma omp parallel for schedule(dynamic) if (q.size() >= worth_sharing)
  for (std::int64_t task = 0; task < heads * parts; ++task) {
    const std::int64_t head = task / parts, b = head / sizes.H, h = head % sizes.H;
    const auto scratch = carve_thread_memory<ForwardScratch<R>>(sizes);
    const Sources<R> sources(scratch.keys, scratch.values, k.as<T>() + head * key_stride,
                             v.as<T>() + head * key_stride, kappa.as<T>() + head * chunk_stride,
                             beta.as<T>() + head * chunk_stride, sizes);
    const R bias = chunk_bias_of<T>(h, chunk_bias, config);
    for (std::int64_t i = task % parts; i < blocks; i += parts)
      forward_block<T>(out.as<T>() + (b * sizes.T * sizes.H + h) * sizes.d,
                       log_sum_exp.as<R>() + head * sizes.T, q.as<T>() + head * query_stride, scratch,
                       sources, i * query_block, bias, sizes, config);
  }
}

// --- backward -------------------------------------------------------------------------------------------
//     P = exp(logit - log_sum_exp)      dS = P * (dP - D),  dP = dO V^T,  D = rowsum(dO * O)
//     dV = P^T dO      dQ = s dS K      dK = s dS^T Q      dbias = sum of dS over the chunks
// As Q carries s log2(e), dS carries ln(2) (through dP and D) until dQ and dbias take it out.

template <class R>
struct BackwardScratch {
  R *keys, *values, *dkeys, *dvalues;  // (S + C, d) of one head, where they are copied
  R *queries, *queries_t;              // (query_block, d) and its transposed panels
  R *dout, *dout_t, *dqueries;
  R *log_sum_exp, *dout_dot_out;  // (query_block); the first in units of log2, the second times ln(2)
  R *weights, *dlogits;           // P^T and ln(2) dS^T (key_block, query_block)

  BackwardScratch(Carver& carver, const Sizes& sizes) {
    const std::int64_t row = row_stride<R>(sizes.d);
    for (R** p : {&keys, &values, &dkeys, &dvalues}) *p = carver.take<R>(sizes.keys() * row);
    for (R** p : {&queries, &queries_t, &dout, &dout_t, &dqueries}) *p = carver.take<R>(query_block * row);
    for (R** p : {&log_sum_exp, &dout_dot_out}) *p = carver.take<R>(query_block);
    for (R** p : {&weights, &dlogits}) *p = carver.take<R>(key_block * query_block);
  }
};

// P^T, dS^T and dQ of one panel of queries against keys begin .. end - 1 of a source. The sum of dS.
template <class R>
R backward_panel(const BackwardScratch<R>& scratch, const BackwardSource<R>& source, const Seen<R>& seen,
                 std::int64_t p, std::int64_t begin, std::int64_t end, R bias, std::int64_t d) {
  const std::int64_t row = row_stride<R>(d), width = padded_width<R>(d);
  const KeyRange keys = keys_of_panel(seen, p, begin, end);
  const auto zero = [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t j = from; j < to; ++j)
      for (R* x : {scratch.weights, scratch.dlogits}) {
        R* panel_row = x + (j - begin) * query_block + p;
        std::fill(panel_row, panel_row + panel<R>, R(0));
      }
  };
  if (keys.empty()) return zero(begin, end), R(0);
  zero(begin, keys.begin);
  zero(keys.end, end);

  R* s = scratch.weights + (keys.begin - begin) * query_block + p;
  R* dp = scratch.dlogits + (keys.begin - begin) * query_block + p;
  const R* keys_seen = source.keys + keys.begin * row;
  multiply<R>(Store::overwrite, s, query_block, {keys_seen, row, 1}, scratch.queries_t + p * width, panel<R>,
              keys.count(), panel<R>, d);
  multiply<R>(Store::overwrite, dp, query_block, {source.values + keys.begin * row, row, 1},
              scratch.dout_t + p * width, panel<R>, keys.count(), panel<R>, d);
  mask(s, query_block, seen, p, keys);
  const R sum =
      weights_and_dlogits(s, dp, keys.count(), bias, scratch.log_sum_exp + p, scratch.dout_dot_out + p);
  multiply<R>(Store::accumulate, scratch.dqueries + p * row, row, {dp, 1, query_block}, keys_seen, row,
              panel<R>, width, keys.count());
  return sum;
}

// dK and dV of keys begin .. end - 1 from the P^T and dS^T of a block of queries.
template <class R>
void accumulate_dkeys(const BackwardSource<R>& source, const BackwardScratch<R>& scratch, const Seen<R>& seen,
                      const QueryBlock& block, std::int64_t begin, std::int64_t end, std::int64_t d) {
  const std::int64_t row = row_stride<R>(d), width = padded_width<R>(d);
  std::int64_t first = 0, last = 0;  // the queries that see some key of the strip
  for (std::int64_t j = begin; j < end; j += tile_rows) {
    const std::int64_t rows = std::min<std::int64_t>(tile_rows, end - j);
    while (first < block.count && seen.end[first] <= j) ++first;
    while (last < block.count && seen.first[last] < j + rows) ++last;
    if (first >= last) continue;
    const std::int64_t at = (j - begin) * query_block + first;
    multiply<R>(Store::accumulate, source.dvalues + j * row, row, {scratch.weights + at, query_block, 1},
                scratch.dout + first * row, row, rows, width, last - first);
    multiply<R>(Store::accumulate, source.dkeys + j * row, row, {scratch.dlogits + at, query_block, 1},
                scratch.queries + first * row, row, rows, width, last - first);
  }
}

// One source's share of the gradients, for one block of queries. The sum of dS.
template <class R>
R attend_backward(const BackwardScratch<R>& scratch, const BackwardSource<R>& source, const Seen<R>& seen,
                  const QueryBlock& block, R bias, std::int64_t d) {
  R sum = 0;
  for_key_blocks(seen, block, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = 0; p < block.padded; p += panel<R>)
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

// dq of a block of queries; the sources' gradients grow. The sum of dS over the chunks.
template <class T, class R = Accumulator<T>>
R backward_block(const BackwardHead<T, R>& head, const BackwardScratch<R>& scratch,
                 const BackwardSource<R>& tokens, const BackwardSource<R>& chunks, std::int64_t begin, R bias,
                 const Sizes& sizes, const AttentionConfig& config) {
  const QueryBlock block = query_block_at<R>(begin, sizes.T);
  const std::int64_t d = sizes.d, row = row_stride<R>(d), out_row = sizes.H * d;
  gather_queries(scratch.queries, head.q, d, block, d, softmax_scale<R>(sizes) * log2_e<R>);
  gather_queries(scratch.dout, head.dout, out_row, block, d, R(1));
  transpose_panels(scratch.queries_t, scratch.queries, block.padded, d);
  transpose_panels(scratch.dout_t, scratch.dout, block.padded, d, ln_2<R>);
  gather_queries(scratch.dqueries, head.out, out_row, block, d,
                 R(1));  // holds the output until it is overwritten
  for (std::int64_t i = 0; i < block.padded; ++i) {
    scratch.dout_dot_out[i] = dot(scratch.dout + i * row, scratch.dqueries + i * row, d) * ln_2<R>;
    scratch.log_sum_exp[i] = i < block.count ? head.log_sum_exp[begin + i] * log2_e<R> : R(0);
  }
  std::fill(scratch.dqueries, scratch.dqueries + block.padded * row, R(0));

  attend_backward(scratch, tokens, seen_tokens<R>(config, block), block, R(0), d);
  R dbias = 0;
  if (sizes.C > 0)
    dbias = log2_e<R> * attend_backward(scratch, chunks, seen_chunks<R>(config, block), block, bias, d);
  narrow_rows(head.dq + begin * d, d, scratch.dqueries, block.count, d, softmax_scale<R>(sizes) * log2_e<R>);
  return dbias;
}

// All gradients of one head but that of its chunk bias, which is returned.
template <class T, class R = Accumulator<T>>
R backward_head(const BackwardHead<T, R>& head, R bias, const Sizes& sizes, const AttentionConfig& config) {
  const auto scratch = carve_thread_memory<BackwardScratch<R>>(sizes);
  const std::int64_t tokens = sizes.T, chunks = sizes.C, d = sizes.d, behind = tokens * row_stride<R>(d);
  const Sources<R> sources(scratch.keys, scratch.values, head.k, head.v, head.kappa, head.beta, sizes);
  const BackwardSource<R> from_tokens{sources.tokens, begin_gradient(scratch.dkeys, head.dk, tokens, d),
                                      begin_gradient(scratch.dvalues, head.dv, tokens, d)};
  const BackwardSource<R> from_chunks{sources.chunks,
                                      begin_gradient(scratch.dkeys + behind, head.dkappa, chunks, d),
                                      begin_gradient(scratch.dvalues + behind, head.dbeta, chunks, d)};
  R dbias = 0;
  for (std::int64_t begin = 0; begin < tokens; begin += query_block)
    dbias += backward_block<T>(head, scratch, from_tokens, from_chunks, begin, bias, sizes, config);
  finish_gradient(head.dk, from_tokens.dkeys, tokens, d);
  finish_gradient(head.dv, from_tokens.dvalues, tokens, d);
  finish_gradient(head.dkappa, from_chunks.dkeys, chunks, d);
  finish_gradient(head.dbeta, from_chunks.dvalues, chunks, d);
  return dbias;
}

template <class T, class R = Accumulator<T>>
void backward(Tensor dq, Tensor dk, Tensor dv, Tensor dkappa, Tensor dbeta, Tensor dchunk_bias, Tensor dout,
              Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta,
              Tensor chunk_bias, const Sizes& sizes, const AttentionConfig& config, GrowingBuffer& scratch) {
  R* const dbias = scratch.take<R>(sizes.B * sizes.H);  // of each sequence and head
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
    dbias[i] = backward_head<T>(head, chunk_bias_of<T>(h, chunk_bias, config), sizes, config);
  }
  if (dchunk_bias)
    for (std::int64_t i = 0; i < sizes.B * sizes.H; ++i) dchunk_bias.as<R>()[i % sizes.H] += dbias[i];
}

// --- preconditions --------------------------------------------------------------------------------------

}  // namespace

void CpuOps::attention_forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v, Tensor kappa,
                               Tensor beta, Tensor chunk_bias, const AttentionConfig& config) {
  const Sizes sizes =
      check_attention(Device::cpu, out, log_sum_exp, q, k, v, kappa, beta, chunk_bias, config);
  dispatch(q.dtype, [&]<class T>(T) {
    forward<T>(out, log_sum_exp, q, k, v, kappa, beta, chunk_bias, sizes, config);
  });
}

void CpuOps::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dkappa, Tensor dbeta,
                                Tensor dchunk_bias, Tensor dout, Tensor out, Tensor log_sum_exp, Tensor q,
                                Tensor k, Tensor v, Tensor kappa, Tensor beta, Tensor chunk_bias,
                                const AttentionConfig& config) {
  const Sizes sizes = check_attention_backward(Device::cpu, dq, dk, dv, dkappa, dbeta, dchunk_bias, dout, out,
                                               log_sum_exp, q, k, v, kappa, beta, chunk_bias, config);
  dispatch(q.dtype, [&]<class T>(T) {
    backward<T>(dq, dk, dv, dkappa, dbeta, dchunk_bias, dout, out, log_sum_exp, q, k, v, kappa, beta,
                chunk_bias, sizes, config, partials_);
  });
}

}  // namespace flasheva
