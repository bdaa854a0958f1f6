#include "src/inference/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <ranges>

#include "kernels/cpu/simd.h"
#include "kernels/philox.h"

namespace flasheva {

namespace {

// Uniform in [0, 1).
double uniform(const SamplingOptions& options, std::uint32_t sequence, std::uint32_t position) {
  const PhiloxWords words = philox4x32({{position, sequence, 0u, 3u}}, options.seed);
  return (words.word[0] + words.word[1] * 0x1p-32) * 0x1p-32;
}

float largest_of(std::span<const float> logits) {
  float largest = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : largest)
  for (std::size_t i = 0; i < logits.size(); ++i) largest = std::max(largest, logits[i]);
  return largest;
}

// exp((logit - largest) / temperature) of every token, and the sums of blocks of them.
struct Weights {
  static constexpr std::size_t block_size = 64;

  float largest;  // logit
  std::vector<float> of_tokens;
  std::vector<double> of_blocks;
  double total = 0;  // NaN where a logit is

  Weights(std::span<const float> logits, float temperature)
      : largest(largest_of(logits)), of_tokens(logits.size()) {
    const auto V = static_cast<std::int64_t>(logits.size());
    constexpr std::int64_t lanes = simd::lanes<float>;
    for (std::int64_t i = 0; i < V; i += lanes) {
      const auto x =
          V - i < lanes ? simd::load_first(logits.data() + i, V - i) : simd::load(logits.data() + i);
      const auto weight = simd::exp((x - largest) / temperature);
      if (V - i < lanes)
        simd::store_first(of_tokens.data() + i, weight, V - i);
      else
        simd::store(of_tokens.data() + i, weight);
    }
    for (std::size_t first = 0; first < of_tokens.size(); first += block_size) {
      const std::size_t end = std::min(first + block_size, of_tokens.size());
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::size_t i = first; i < end; ++i) sum += of_tokens[i];
      of_blocks.push_back(sum);
      total += sum;
    }
  }

  double of(std::int32_t token) const { return of_tokens[static_cast<std::size_t>(token)]; }
};

// A logit that at least `count` of them reach, and not many more: each of `count` blocks of tokens has one.
float bound_of_most_likely(std::span<const float> logits, std::size_t count) {
  const std::size_t block_size = std::clamp<std::size_t>(logits.size() / (4 * count), 1, 512);
  std::vector<float> maxima;
  for (std::size_t first = 0; first < logits.size(); first += block_size) {
    const std::size_t size = std::min(block_size, logits.size() - first);
    maxima.push_back(largest_of(logits.subspan(first, size)));
  }
  const auto last = maxima.begin() + static_cast<std::ptrdiff_t>(count - 1);
  std::nth_element(maxima.begin(), last, maxima.end(), std::greater<>());
  return *last;
}

std::vector<std::int32_t> tokens_from(std::span<const float> logits, float bound) {
  std::vector<std::int32_t> tokens(logits.size());
  std::size_t count = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    tokens[count] = static_cast<std::int32_t>(i);
    count += logits[i] >= bound;
  }
  tokens.resize(count);
  return tokens;
}

// What may be drawn where top_k or top_p leaves tokens out, most likely first, of equals the first.
struct Candidates {
  std::vector<std::int32_t> tokens;
  double total = 0;  // weight

  Candidates(std::span<const float> logits, const Weights& weights, const SamplingOptions& options) {
    const auto more_likely = [&](std::int32_t a, std::int32_t b) {
      const float la = logits[static_cast<std::size_t>(a)], lb = logits[static_cast<std::size_t>(b)];
      return la != lb ? la > lb : a < b;
    };
    const auto at = [&](std::size_t i) { return tokens.begin() + static_cast<std::ptrdiff_t>(i); };
    double of_all = weights.total;
    if (const auto k = static_cast<std::size_t>(options.top_k); 0 < k && k < logits.size()) {
      tokens = tokens_from(logits, bound_of_most_likely(logits, k));
      if (k < tokens.size()) std::nth_element(at(0), at(k), tokens.end(), more_likely);
      tokens.resize(k);
      of_all = 0;
      for (const std::int32_t token : tokens) of_all += weights.of(token);
    } else {
      // All tokens lighter than this, together, are not half of what top_p leaves out.
      const double least = (1 - options.top_p) * weights.total / (2 * static_cast<double>(logits.size()));
      tokens =
          tokens_from(logits, static_cast<float>(weights.largest + options.temperature * std::log(least)));
    }
    // Few tokens hold most of the probability: sort some, and more where they do not reach top_p.
    std::size_t kept = 0;
    for (std::size_t sorted = 256; kept < tokens.size() && total < options.top_p * of_all; sorted *= 8) {
      const std::size_t end = std::min(sorted, tokens.size());
      if (end < tokens.size()) std::nth_element(at(kept), at(end), tokens.end(), more_likely);
      std::sort(at(kept), at(end), more_likely);
      for (; kept < end && total < options.top_p * of_all; ++kept) total += weights.of(tokens[kept]);
    }
    tokens.resize(kept);
  }
};

// The first of these tokens up to which they weigh more than `left`, which becomes less by all before.
template <class Tokens>
std::optional<std::int32_t> draw(const Tokens& tokens, const Weights& weights, double& left) {
  for (const std::int32_t token : tokens)
    if ((left -= weights.of(token)) < 0) return token;
  return std::nullopt;
}

std::optional<std::int32_t> draw_from_all(const Weights& weights, double left) {
  const auto V = static_cast<std::int32_t>(weights.of_tokens.size());
  for (std::size_t block = 0; block < weights.of_blocks.size(); ++block) {
    if (left >= weights.of_blocks[block]) {
      left -= weights.of_blocks[block];
      continue;
    }
    const auto first = static_cast<std::int32_t>(block * Weights::block_size);
    const auto end = std::min(first + static_cast<std::int32_t>(Weights::block_size), V);
    if (const auto token = draw(std::views::iota(first, end), weights, left)) return token;
  }
  return std::nullopt;
}

}  // namespace

std::int32_t sample(std::span<const float> logits, const SamplingOptions& options, std::uint32_t sequence,
                    std::uint32_t position) {
  const auto most_likely = [&] {
    return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  };
  if (options.greedy) {
    const bool nan = std::any_of(logits.begin(), logits.end(), [](float x) { return std::isnan(x); });
    return nan ? -1 : most_likely();
  }
  const Weights weights(logits,
                        std::max(static_cast<float>(options.temperature), std::numeric_limits<float>::min()));
  if (std::isnan(weights.total)) return -1;
  const double place = uniform(options, sequence, position);
  const bool cut = options.top_p < 1 || (0 < options.top_k && options.top_k < std::ssize(logits));
  std::optional<std::int32_t> token;
  if (cut) {
    const Candidates candidates(logits, weights, options);
    double left = place * candidates.total;
    token = draw(candidates.tokens, weights, left);
  } else {
    token = draw_from_all(weights, place * weights.total);
  }
  return token ? *token : most_likely();  // where rounding left some
}

void penalize_repetition(std::span<float> logits, std::span<const std::int32_t> occurred, double penalty) {
  const auto factor = static_cast<float>(penalty);
  for (const std::int32_t token : occurred) {
    float& logit = logits[static_cast<std::size_t>(token)];
    logit = logit > 0 ? logit / factor : logit * factor;
  }
}

}  // namespace flasheva
