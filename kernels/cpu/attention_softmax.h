// The softmax inside blocked attention, over logits that stand transposed, (keys x panel of queries): no sum
// crosses the lanes of a vector. Maxima and biases are in units of log2, and `scale` brings q.k there: every
// exponential is a power of two.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/simd.h"

namespace flasheva::cpu_attention {

// One online-softmax step of a panel of queries: s (keys, panel) becomes exp2(scale s + bias - max) with the
// maximum so far; out (panel, d) and sum, gathered under the maximum before, are brought to the new one.
template <class R>
void softmax_step(R* s, std::int64_t keys, R scale, R bias, R* max, R* sum, R* out, std::int64_t d) {
  constexpr int lanes = simd::lanes<R>;
  R correction[panel<R>];
  bool corrected = false;
  for (int v = 0; v < panel<R>; v += lanes) {
    const auto max_before = simd::load(max + v);
    auto largest = simd::broadcast(-std::numeric_limits<R>::infinity());
    for (std::int64_t j = 0; j < keys; ++j) largest = simd::max(simd::load(s + j * panel<R> + v), largest);
    largest = simd::max(largest * scale, max_before - bias);
    simd::Vector<R> added{};
    for (std::int64_t j = 0; j < keys; ++j) {
      R* x = s + j * panel<R> + v;
      const auto weight = simd::exp2(simd::fma(simd::load(x), simd::broadcast(scale), -largest));
      added += weight;
      simd::store(x, weight);
    }
    const auto max_now = largest + bias;
    const auto factor = simd::exp2(max_before - max_now);
    simd::store(sum + v, simd::fma(simd::load(sum + v), factor, added));
    simd::store(max + v, max_now);
    simd::store(correction + v, factor);
  }
  for (R factor : correction) corrected |= factor != 1;
  if (!corrected) return;
  const std::int64_t row = row_stride<R>(d), width = padded_width<R>(d);
  for (int i = 0; i < panel<R>; ++i)
    for (std::int64_t k = 0; k < width; k += lanes)
      simd::store(out + i * row + k, simd::load(out + i * row + k) * correction[i]);
}

// Backward: s (keys, panel) becomes P and dp (keys, panel) dS = P * (factor dp - D); rows of both are `row`
// apart. The sum of dS.
template <class R>
R weights_and_dlogits(R* s, R* dp, std::int64_t row, std::int64_t keys, R scale, R bias, const R* log_sum_exp,
                      R factor, const R* dout_dot_out) {
  constexpr int lanes = simd::lanes<R>;
  simd::Vector<R> sum{};
  for (int v = 0; v < panel<R>; v += lanes) {
    const auto shift = simd::load(log_sum_exp + v) - bias, D = simd::load(dout_dot_out + v);
    for (std::int64_t j = 0; j < keys; ++j) {
      R* x = s + j * row + v;
      R* dx = dp + j * row + v;
      const auto weight = simd::exp2(simd::fma(simd::load(x), simd::broadcast(scale), -shift));
      const auto dlogit = weight * simd::fma(simd::load(dx), simd::broadcast(factor), -D);
      simd::store(x, weight);
      simd::store(dx, dlogit);
      sum += dlogit;
    }
  }
  return simd::sum(sum);
}

}  // namespace flasheva::cpu_attention
