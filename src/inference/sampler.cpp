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

}  // namespace

std::int32_t sample(std::span<const float> logits, const SamplingOptions& options, std::uint32_t sequence,
                    std::uint32_t position) {
  const auto largest = std::max_element(logits.begin(), logits.end());
  if (options.greedy) return static_cast<std::int32_t>(largest - logits.begin());

  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto more_likely = [&](std::int32_t a, std::int32_t b) {
    const float la = logits[static_cast<std::size_t>(a)], lb = logits[static_cast<std::size_t>(b)];
    return la != lb ? la > lb : a < b;
  };
  std::sort(order.begin(), order.end(), more_likely);
  if (options.top_k > 0 && options.top_k < static_cast<std::int64_t>(order.size()))
    order.resize(static_cast<std::size_t>(options.top_k));

  std::vector<double> weights;
  for (const std::int32_t token : order)
    weights.push_back(std::exp((logits[static_cast<std::size_t>(token)] - *largest) / options.temperature));
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double kept = 0;
  std::size_t count = 0;
  while (count < weights.size() && kept < options.top_p * total) kept += weights[count++];

  double left = uniform(options, sequence, position) * kept;
  for (std::size_t i = 0; i < count; ++i) {
    left -= weights[i];
    if (left < 0) return order[i];
  }
  return order[count - 1];
}

}  // namespace flasheva
