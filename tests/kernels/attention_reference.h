// Attention as the design writes it: one query at a time over its visible set, forward and backward. `Round`
// is applied to every intermediate tensor: nothing for the float64 reference, rounding to bfloat16 or float16
// for the plain formula that the fast kernel is judged against.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "tests/support/tensors.h"

namespace flasheva {

// Visible sets, from their definition.
inline bool sees_token(const Visibility& v, std::int64_t n, std::int64_t m) {
  if (m > n) return false;
  if (v.kind == AttentionKind::full) return true;
  if (v.kind == AttentionKind::sliding) return n - m < v.window;
  if (v.window_kind == WindowKind::block) return m / v.window == n / v.window;
  const std::int64_t chunk_start = m / v.chunk * v.chunk;  // seen when any of its chunk is within the window
  return n - (chunk_start + v.chunk - 1) < v.window;
}

inline bool sees_chunk(const Visibility& v, std::int64_t n, std::int64_t c) {
  if (v.kind != AttentionKind::eva) return false;
  const std::int64_t last = (c + 1) * v.chunk - 1;
  if (last >= n) return false;
  if (v.chunk_visibility == ChunkVisibility::all_past) return c < n / v.chunk;
  return !sees_token(v, n, last);
}

struct AttentionTensors {
  TestTensor q, k, v, kappa, beta, chunk_bias, dout;  // inputs
  TestTensor out, log_sum_exp;                        // forward
  TestTensor dq, dk, dv, dkappa, dbeta, dchunk_bias;  // backward
};

struct NoRounding {
  double operator()(double x) const { return x; }
};

// Fills out, log_sum_exp and the gradients (float64) from the inputs; without dout the gradients stay 0.
// dchunk_bias is present with a learned bias.
template <class Round = NoRounding>
void reference_attention(AttentionTensors& t, const AttentionConfig& config, const Round& round = {}) {
  const std::int64_t B = t.q.shape()[0], H = t.q.shape()[1], T = t.q.shape()[2], d = t.q.shape()[3];
  const std::int64_t C = config.visibility.chunks(T);
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  t.out = TestTensor::zeros(DType::f64, {B, T, H * d});
  t.log_sum_exp = TestTensor::zeros(DType::f64, {B, H, T});
  std::vector<double> dq(B * H * T * d), dk(B * H * T * d), dv(B * H * T * d), dkappa(B * H * C * d),
      dbeta(B * H * C * d);
  std::vector<double> dbias(H);
  struct Key {
    const TestTensor *key, *value;
    double *dkey, *dvalue;
    std::int64_t row;
    bool chunk;
    double weight;
  };
  std::vector<Key> keys;
  for (std::int64_t bh = 0; bh < B * H; ++bh)
    for (std::int64_t n = 0; n < T; ++n) {
      const std::int64_t h = bh % H, query = (bh * T + n) * d, merged = ((bh / H * T + n) * H + h) * d;
      keys.clear();
      for (std::int64_t m = 0; m < T; ++m)
        if (sees_token(config.visibility, n, m))
          keys.push_back({&t.k, &t.v, &dk[0], &dv[0], (bh * T + m) * d, false, 0});
      for (std::int64_t c = 0; c < C; ++c)
        if (sees_chunk(config.visibility, n, c))
          keys.push_back({&t.kappa, &t.beta, dkappa.data(), dbeta.data(), (bh * C + c) * d, true, 0});
      double largest = -INFINITY, sum = 0;
      for (Key& key : keys) {
        double dot = 0;
        for (std::int64_t i = 0; i < d; ++i) dot += t.q.get(query + i) * key.key->get(key.row + i);
        key.weight = round(scale * round(dot));
        if (key.chunk && config.chunk_bias == ChunkBias::log_chunk)
          key.weight = round(key.weight + std::log(static_cast<double>(config.visibility.chunk)));
        if (key.chunk && config.chunk_bias == ChunkBias::learned)
          key.weight = round(key.weight + t.chunk_bias.get(h));
        largest = std::max(largest, key.weight);
      }
      for (const Key& key : keys) sum += std::exp(key.weight - largest);
      t.log_sum_exp.set(bh * T + n, largest + std::log(sum));
      for (Key& key : keys) key.weight = round(std::exp(key.weight - largest) / sum);
      for (std::int64_t i = 0; i < d; ++i) {
        double out = 0;
        for (const Key& key : keys) out += key.weight * key.value->get(key.row + i);
        t.out.set(merged + i, round(out));
      }
      if (!t.dout.view().data) continue;
      // backward: dP = dO V^T, dS = P (dP - sum of P dP)
      std::vector<double> dweights;
      double weighted = 0;
      for (const Key& key : keys) {
        double dot = 0;
        for (std::int64_t i = 0; i < d; ++i) dot += t.dout.get(merged + i) * key.value->get(key.row + i);
        dweights.push_back(round(dot));
        weighted += key.weight * dweights.back();
      }
      for (std::size_t j = 0; j < keys.size(); ++j) {
        const Key& key = keys[j];
        const double dlogit = round(key.weight * (dweights[j] - weighted));
        if (key.chunk) dbias[h] += dlogit;
        const double dscaled = round(scale * dlogit);
        for (std::int64_t i = 0; i < d; ++i) {
          dq[query + i] += dscaled * key.key->get(key.row + i);
          key.dkey[key.row + i] += dscaled * t.q.get(query + i);
          key.dvalue[key.row + i] += key.weight * t.dout.get(merged + i);
        }
      }
    }
  const auto rounded = [&](const std::vector<double>& values, Shape shape) {
    TestTensor out(DType::f64, shape);
    for (std::size_t i = 0; i < values.size(); ++i) out.set(i, round(values[i]));
    return out;
  };
  t.dq = rounded(dq, t.q.shape()), t.dk = rounded(dk, t.q.shape()), t.dv = rounded(dv, t.q.shape());
  t.dkappa = rounded(dkappa, {B, H, C, d}), t.dbeta = rounded(dbeta, {B, H, C, d});
  if (config.chunk_bias == ChunkBias::learned) t.dchunk_bias = rounded(dbias, {H});
}

}  // namespace flasheva
