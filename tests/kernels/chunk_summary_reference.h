// Chunk summaries as the design writes them, chunk by chunk, forward and backward. `Round` is applied to
// every intermediate: nothing for the float64 reference, rounding to bfloat16 or float16 for the plain
// formula.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/ops.h"
#include "tests/support/tensors.h"

namespace flasheva {

// Parameters of a layer, or their gradients, owned.
struct EvaTensors {
  TestTensor key_weight, key_bias, key_norm_weight, key_norm_bias;
  TestTensor query_weight, query_bias, query_norm_weight, query_norm_bias;
  TestTensor mu, phi;

  std::vector<TestTensor*> all() {
    return {&key_weight,   &key_bias,   &key_norm_weight,   &key_norm_bias,
            &query_weight, &query_bias, &query_norm_weight, &query_norm_bias,
            &mu,           &phi};
  }
  EvaParameters view() {
    return {key_weight,
            key_bias,
            key_norm_weight,
            key_norm_bias,
            query_weight,
            query_bias,
            query_norm_weight,
            query_norm_bias,
            mu,
            phi,
            {}};
  }
};

struct SummaryTensors {
  TestTensor q, k, v, dkappa, dbeta;  // inputs
  EvaTensors parameters;
  TestTensor kappa, beta;  // forward
  TestTensor dq, dk, dv;   // backward
  EvaTensors gradients;
};

// Rows of float64 and the few operations that the formulas need; each result is rounded.
using Row = std::vector<double>;
using Rounding = std::function<double(double)>;

struct RowMath {
  Rounding round;

  Row map(std::size_t n, const std::function<double(std::size_t)>& f) const {
    Row out(n);
    for (std::size_t i = 0; i < n; ++i) out[i] = round(f(i));
    return out;
  }
  static double sum(std::size_t n, const std::function<double(std::size_t)>& f) {
    double total = 0;
    for (std::size_t i = 0; i < n; ++i) total += f(i);
    return total;
  }
  double dot(const Row& a, const Row& b) const {
    return round(sum(a.size(), [&](auto i) { return a[i] * b[i]; }));
  }
  Row add(const Row& a, const Row& b) const {
    return map(a.size(), [&](auto i) { return a[i] + b[i]; });
  }
  Row softmax(const Row& x) const {
    const double largest = *std::max_element(x.begin(), x.end());
    const double total = sum(x.size(), [&](auto i) { return std::exp(x[i] - largest); });
    return map(x.size(), [&](auto i) { return std::exp(x[i] - largest) / total; });
  }
  Row softmax_backward(const Row& p, const Row& dp) const {
    const double mean = sum(p.size(), [&](auto i) { return p[i] * dp[i]; });
    return map(p.size(), [&](auto i) { return p[i] * (dp[i] - mean); });
  }
  // The weighted sum of rows.
  Row combine(const Row& weights, const std::vector<Row>& rows) const {
    return map(rows[0].size(),
               [&](auto i) { return sum(rows.size(), [&](auto m) { return weights[m] * rows[m][i]; }); });
  }
};

// One row through an adapter and back. Gradients are summed into float64 tensors.
struct ReferenceAdapter {
  const RowMath& math;
  const ChunkSummaryConfig& config;
  const TestTensor &weight, &bias, &norm_weight, &norm_bias;
  TestTensor &dweight, &dbias, &dnorm_weight, &dnorm_bias;
  Row in, normalized;
  double rstd = 0;

  bool adapted() const {
    return config.adapter == Adapter::linear || config.adapter == Adapter::linear_layernorm;
  }

  Row forward(const Row& x) {
    in = x;
    if (!adapted()) return x;
    const std::size_t d = x.size();
    Row z = math.map(d, [&](auto i) {
      return bias.get(i) + RowMath::sum(d, [&](auto j) { return weight.get(i * d + j) * x[j]; });
    });
    if (config.adapter == Adapter::linear) return z;
    const double mean = RowMath::sum(d, [&](auto i) { return z[i]; }) / d;
    rstd = 1 / std::sqrt(RowMath::sum(d, [&](auto i) { return (z[i] - mean) * (z[i] - mean); }) / d + 1e-5);
    normalized = math.map(d, [&](auto i) { return (z[i] - mean) * rstd; });
    return math.map(d, [&](auto i) { return normalized[i] * norm_weight.get(i) + norm_bias.get(i); });
  }

  Row backward(Row dout) {
    if (!adapted()) return dout;
    const std::size_t d = dout.size();
    const auto add = [](TestTensor& gradient, std::size_t i, double value) {
      gradient.set(i, gradient.get(i) + value);
    };
    if (config.adapter == Adapter::linear_layernorm) {
      for (std::size_t i = 0; i < d; ++i)
        add(dnorm_weight, i, dout[i] * normalized[i]), add(dnorm_bias, i, dout[i]);
      const Row dy = math.map(d, [&](auto i) { return dout[i] * norm_weight.get(i); });
      const double mean = RowMath::sum(d, [&](auto i) { return dy[i]; }) / d;
      const double along = RowMath::sum(d, [&](auto i) { return dy[i] * normalized[i]; }) / d;
      dout = math.map(d, [&](auto i) { return (dy[i] - mean - normalized[i] * along) * rstd; });
    }
    for (std::size_t i = 0; i < d; ++i) {
      add(dbias, i, dout[i]);
      for (std::size_t j = 0; j < d; ++j) add(dweight, i * d + j, dout[i] * in[j]);
    }
    return math.map(
        d, [&](auto j) { return RowMath::sum(d, [&](auto i) { return weight.get(i * d + j) * dout[i]; }); });
  }
};

// Fills kappa, beta, dq, dk, dv and the parameters' gradients, all float64. `noise` gives eps, clipped, of
// (b, h, c, dimension).
using NoiseFunction = std::function<double(std::int64_t b, std::int64_t h, std::int64_t c, std::int64_t i)>;
inline void reference_chunk_summary(
    SummaryTensors& t, const ChunkSummaryConfig& config, const NoiseFunction& noise,
    Rounding round = [](double x) { return x; }) {
  const RowMath math{round};
  const std::int64_t B = t.q.shape()[0], H = t.q.shape()[1], T = t.q.shape()[2], d = t.q.shape()[3];
  const std::int64_t P = config.chunk, C = T / P;
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  for (TestTensor* x : {&t.kappa, &t.beta}) *x = TestTensor::zeros(DType::f64, {B, H, C, d});
  for (TestTensor* x : {&t.dq, &t.dk, &t.dv}) *x = TestTensor::zeros(DType::f64, t.q.shape());
  auto &p = t.parameters, &g = t.gradients;
  const auto parameters = p.all(), gradients = g.all();
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (parameters[i]->view()) *gradients[i] = TestTensor::zeros(DType::f64, parameters[i]->shape());

  const auto row_of = [&](const TestTensor& x, std::int64_t at) {
    Row row(d);
    for (std::int64_t i = 0; i < d; ++i) row[i] = x.get(at + i);
    return row;
  };
  const auto set_row = [&](TestTensor& x, std::int64_t at, const Row& row) {
    for (std::int64_t i = 0; i < d; ++i) x.set(at + i, row[i]);
  };
  const auto add_row = [&](TestTensor& x, std::int64_t at, const Row& row) {
    set_row(x, at, math.add(row_of(x, at), row));
  };

  // Parameters' gradients are sums of products, accumulated unrounded.
  const auto sum_row = [&](TestTensor& x, std::int64_t at, const Row& row) {
    for (std::int64_t i = 0; i < d; ++i) x.set(at + i, x.get(at + i) + row[i]);
  };

  for (std::int64_t bh = 0; bh < B * H; ++bh)
    for (std::int64_t c = 0; c < C; ++c) {
      const std::int64_t b = bh / H, h = bh % H, first = (bh * T + c * P) * d, chunk = (bh * C + c) * d;
      std::vector<Row> qs, ks, vs;
      for (std::int64_t m = 0; m < P; ++m) {
        qs.push_back(row_of(t.q, first + m * d));
        ks.push_back(row_of(t.k, first + m * d));
        vs.push_back(row_of(t.v, first + m * d));
      }
      const bool learned = config.adapter == Adapter::learned,
                 queries = !learned && config.proposal == Proposal::qk;
      const Row mean(P, 1.0 / P);
      ReferenceAdapter key{math,
                           config,
                           p.key_weight,
                           p.key_bias,
                           p.key_norm_weight,
                           p.key_norm_bias,
                           g.key_weight,
                           g.key_bias,
                           g.key_norm_weight,
                           g.key_norm_bias,
                           {},
                           {},
                           0};
      ReferenceAdapter query{math,
                             config,
                             p.query_weight,
                             p.query_bias,
                             p.query_norm_weight,
                             p.query_norm_bias,
                             g.query_weight,
                             g.query_bias,
                             g.query_norm_weight,
                             g.query_norm_bias,
                             {},
                             {},
                             0};

      // forward
      Row pool, kappa, omega(d, 0.0);
      if (learned) {
        const Row mu = row_of(p.mu, h * d);
        pool = math.softmax(math.map(P, [&](auto m) { return math.dot(mu, ks[m]); }));
        kappa = math.combine(pool, ks);
        omega = row_of(p.phi, h * d);
      } else {
        kappa = key.forward(math.combine(mean, ks));
        if (config.proposal != Proposal::zero) omega = kappa;
        if (queries) omega = math.add(query.forward(math.combine(mean, qs)), kappa);
      }
      if (config.noise.enabled) omega = math.map(d, [&](auto i) { return omega[i] + noise(b, h, c, i); });
      const Row weights = math.softmax(math.map(P, [&](auto m) {
        return scale * math.round(math.dot(omega, ks[m]) - math.round(math.dot(ks[m], ks[m]) / 2));
      }));
      set_row(t.kappa, chunk, kappa);
      set_row(t.beta, chunk, math.combine(weights, vs));

      // backward
      Row dkappa = row_of(t.dkappa, chunk);
      const Row dbeta = row_of(t.dbeta, chunk);
      const Row dweights = math.map(P, [&](auto m) { return math.dot(dbeta, vs[m]); });
      const Row dlogits =
          math.map(P, [&, raw = math.softmax_backward(weights, dweights)](auto m) { return scale * raw[m]; });
      const Row domega = math.combine(dlogits, ks);
      for (std::int64_t m = 0; m < P; ++m) {
        add_row(t.dv, first + m * d, math.map(d, [&](auto i) { return weights[m] * dbeta[i]; }));
        add_row(t.dk, first + m * d, math.map(d, [&](auto i) { return dlogits[m] * omega[i]; }));
        add_row(t.dk, first + m * d, math.map(d, [&](auto i) { return -dlogits[m] * ks[m][i]; }));
      }
      if (learned) {
        sum_row(g.phi, h * d, domega);
        const Row mu = row_of(p.mu, h * d);
        const Row dpool = math.map(P, [&](auto m) { return math.dot(dkappa, ks[m]); });
        const Row dpool_logits = math.softmax_backward(pool, dpool);
        sum_row(g.mu, h * d, math.combine(dpool_logits, ks));
        for (std::int64_t m = 0; m < P; ++m) {
          add_row(t.dk, first + m * d, math.map(d, [&](auto i) { return pool[m] * dkappa[i]; }));
          add_row(t.dk, first + m * d, math.map(d, [&](auto i) { return dpool_logits[m] * mu[i]; }));
        }
        continue;
      }
      if (config.proposal != Proposal::zero) dkappa = math.add(dkappa, domega);
      const Row dkbar = key.backward(dkappa);
      const Row dqbar = queries ? query.backward(domega) : Row(d, 0.0);
      for (std::int64_t m = 0; m < P; ++m) {
        add_row(t.dk, first + m * d, math.map(d, [&](auto i) { return dkbar[i] / P; }));
        if (queries) add_row(t.dq, first + m * d, math.map(d, [&](auto i) { return dqbar[i] / P; }));
      }
    }
}

}  // namespace flasheva
