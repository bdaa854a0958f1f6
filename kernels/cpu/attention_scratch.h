// What attention works on besides its tensors, in memory of each thread: the operands of a head and of a
// block of queries, and the weights and dlogits on their way from one product to the next. `stored` is the
// type of the tensors.
#pragma once

#include <cstdint>

#include "kernels/cpu/attention_operands.h"
#include "kernels/cpu/scratch.h"

namespace flasheva::cpu_attention {

// --- forward --------------------------------------------------------------------------------------------

template <class E, class R = SumOf<E>>
struct ForwardScratch {
  E *keys, *values;        // (S + C, d) of one head, which are copied where they do not lie as wanted
  E *queries, *queries_t;  // (query_block, d) and its transposed panels
  R* out;                  // (query_block, d), not yet divided by `sum`
  R *max, *sum;            // (query_block): of the logits and of exp2(logit - max), so far
  R* logits;               // (key_block, panel); then weights
  E* weights;              // the same, down, where E is not R

  ForwardScratch(Carver& carver, const Sizes& sizes, DType stored) {
    const std::int64_t row = row_stride<E>(sizes.d);
    const bool lie = lie_along<E>(stored, sizes.d);
    keys = carver.take<E>(lie ? 0 : sizes.keys() * row);
    values = carver.take<E>(lie && !in_pairs<E> ? 0 : sizes.keys() * row);
    for (E** p : {&queries, &queries_t}) *p = carver.take<E>(query_block * row);
    out = carver.take<R>(query_block * row);
    for (R** p : {&max, &sum}) *p = carver.take<R>(query_block);
    logits = carver.take<R>(key_block * panel<E>);
    weights = in_pairs<E> ? carver.take<E>(elements<E>(key_block) * panel<E>) : nullptr;
  }
};

// Weights (keys, panel) as the left factor of the product with the values.
template <class E, class R>
const E* weights_down(const ForwardScratch<E>& scratch, const R* weights, std::int64_t keys) {
  if constexpr (in_pairs<E>) {
    pack_down(scratch.weights, weights, panel<E>, keys);
    return scratch.weights;
  } else {
    return weights;
  }
}

// --- backward -------------------------------------------------------------------------------------------

template <class E, class R = SumOf<E>>
struct BackwardScratch {
  E *keys, *values, *keys_down;  // (S + C, d) of one head, which are copied where they do not lie as wanted
  R *dkeys, *dvalues;            // the same
  E *queries, *queries_t;        // (query_block, d), down, and its transposed panels
  E *dout, *dout_t;
  R* dqueries;
  R *log_sum_exp, *dout_dot_out;     // (query_block); the first in units of log2, the second times s
  E *weights, *dlogits;              // P^T and dS^T (key_block, query_block), along
  R *panel_weights, *panel_dlogits;  // the same of one panel of queries (key_block, panel), where E is not R
  E* dlogits_down;

  BackwardScratch(Carver& carver, const Sizes& sizes, DType stored) {
    const std::int64_t row = row_stride<E>(sizes.d), copied = sizes.keys() * row;
    for (E** p : {&keys, &values}) *p = carver.take<E>(lie_along<E>(stored, sizes.d) ? 0 : copied);
    keys_down = carver.take<E>(in_pairs<E> ? copied : 0);
    for (R** p : {&dkeys, &dvalues}) *p = carver.take<R>(lie_padded<R>(stored, sizes.d) ? 0 : copied);
    for (E** p : {&queries, &queries_t, &dout, &dout_t}) *p = carver.take<E>(query_block * row);
    dqueries = carver.take<R>(query_block * row);
    for (R** p : {&log_sum_exp, &dout_dot_out}) *p = carver.take<R>(query_block);
    for (E** p : {&weights, &dlogits}) *p = carver.take<E>(key_block * weights_row);
    if (!in_pairs<E>) return;
    for (R** p : {&panel_weights, &panel_dlogits}) *p = carver.take<R>(key_block * panel<E>);
    dlogits_down = carver.take<E>(elements<E>(key_block) * panel<E>);
  }

  static constexpr std::int64_t weights_row = query_block / steps<E>;
};

// Of each sequence and head: the gradient of its chunk bias (B H).
template <class R>
struct ChunkBiasGradients {
  R* of_heads;

  ChunkBiasGradients(Carver& carver, const Sizes& sizes) : of_heads(carver.take<R>(sizes.B * sizes.H)) {}
};

// P^T and dS^T of a panel of queries at p against keys that they see, begun in R and left as E.
template <class E, class R = SumOf<E>>
struct PanelWeights {
  R *weights, *dlogits;  // (keys, panel), `row` apart
  std::int64_t row;
  E *weights_out, *dlogits_out;  // in the block's weights and dlogits

  PanelWeights(const BackwardScratch<E>& scratch, std::int64_t p, std::int64_t first_key) {
    const std::int64_t at = first_key * scratch.weights_row + p / steps<E>;
    weights_out = scratch.weights + at, dlogits_out = scratch.dlogits + at;
    if constexpr (in_pairs<E>)
      weights = scratch.panel_weights, dlogits = scratch.panel_dlogits, row = panel<E>;
    else
      weights = weights_out, dlogits = dlogits_out, row = scratch.weights_row;
  }

  // The dlogits as the left factor of the product with the keys.
  Strided<E> finish(const BackwardScratch<E>& scratch, std::int64_t keys) const {
    if constexpr (in_pairs<E>) {
      pack_along(weights_out, scratch.weights_row, weights, row, keys);
      pack_along(dlogits_out, scratch.weights_row, dlogits, row, keys);
      pack_down(scratch.dlogits_down, dlogits, row, keys);
      return {scratch.dlogits_down, 1, panel<E>};
    } else {
      return {dlogits, 1, row};
    }
  }
};

}  // namespace flasheva::cpu_attention
