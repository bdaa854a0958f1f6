#include "src/inference/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/philox.h"

namespace flasheva {

namespace {

// Uniform in [0, 1).
double uniform(const SamplingOptions& options, std::uint32_t sequence, std::uint32_t position) {
  const PhiloxWords words = philox4x32({{position, sequence, 0u, 3u}}, options.seed);
  return (words.word[0] + words.word[1] * 0x1p-32) * 0x1p-32;
}

// The `count` most likely tokens, most likely first, of equals the first.
std::vector<std::int32_t> most_likely(std::span<const float> logits, std::size_t count) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto more_likely = [&](std::int32_t a, std::int32_t b) {
    const float la = logits[static_cast<std::size_t>(a)], lb = logits[static_cast<std::size_t>(b)];
    return la != lb ? la > lb : a < b;
  };
  const auto end = order.begin() + static_cast<std::ptrdiff_t>(std::min(count, order.size()));
  if (end != order.end()) std::nth_element(order.begin(), end, order.end(), more_likely);
  std::sort(order.begin(), end, more_likely);
  order.erase(end, order.end());
  return order;
}

// exp((logit - largest) / temperature) of every logit.
std::vector<double> weights_of(std::span<const float> logits, double temperature) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> weights(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) weights[i] = std::exp((logits[i] - largest) / temperature);
  return weights;
}

// What may be drawn, with its weights.
struct Candidates {
  std::vector<std::int32_t> tokens;  // most likely first; all tokens in their order where nothing is cut
  std::vector<double> weights;
  double total = 0;
};

Candidates candidates_of(std::span<const float> logits, const SamplingOptions& options) {
  std::vector<double> weights = weights_of(logits, options.temperature);
  const std::size_t V = logits.size();
  const std::size_t most = options.top_k > 0 ? std::min(V, static_cast<std::size_t>(options.top_k)) : V;
  if (most == V && options.top_p >= 1) {
    Candidates all{std::vector<std::int32_t>(V), std::move(weights), 0};
    std::iota(all.tokens.begin(), all.tokens.end(), 0);
    all.total = std::accumulate(all.weights.begin(), all.weights.end(), 0.0);
    return all;
  }
  // Few tokens hold most of the probability: sort some, and more where they do not reach top_p.
  double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (std::size_t sorted = options.top_k > 0 ? most : 256;; sorted *= 8) {
    Candidates kept{most_likely(logits, std::min(sorted, most)), {}, 0};
    const auto weight_of = [&](std::int32_t token) { return weights[static_cast<std::size_t>(token)]; };
    if (options.top_k > 0) {
      total = 0;
      for (const std::int32_t token : kept.tokens) total += weight_of(token);
    }
    for (const std::int32_t token : kept.tokens) {
      if (kept.total >= options.top_p * total) break;
      kept.weights.push_back(weight_of(token));
      kept.total += kept.weights.back();
    }
    if (kept.total < options.top_p * total && sorted < most) continue;
    kept.tokens.resize(kept.weights.size());
    return kept;
  }
}

}  // namespace

std::int32_t sample(std::span<const float> logits, const SamplingOptions& options, std::uint32_t sequence,
                    std::uint32_t position) {
  if (options.greedy)
    return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  const Candidates candidates = candidates_of(logits, options);
  double left = uniform(options, sequence, position) * candidates.total;
  std::int32_t last = candidates.tokens.front();
  for (std::size_t i = 0; i < candidates.tokens.size(); ++i) {
    if (candidates.weights[i] == 0) continue;
    last = candidates.tokens[i];
    left -= candidates.weights[i];
    if (left < 0) break;
  }
  return last;
}

void penalize_repetition(std::span<float> logits, std::span<const std::int32_t> occurred, double penalty) {
  const auto factor = static_cast<float>(penalty);
  for (const std::int32_t token : occurred) {
    float& logit = logits[static_cast<std::size_t>(token)];
    logit = logit > 0 ? logit / factor : logit * factor;
  }
}

}  // namespace flasheva
