#include "src/inference/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>

#include "kernels/philox.h"

namespace flasheva {
namespace {

constexpr int draws = 20000;

// How often each token is drawn at the positions 0 .. draws - 1, as a share of them.
std::vector<double> frequencies(const std::vector<float>& logits, const SamplingOptions& options) {
  std::vector<double> counts(logits.size());
  for (std::uint32_t i = 0; i < draws; ++i)
    counts[static_cast<std::size_t>(sample(logits, options, 0, i))] += 1;
  for (double& count : counts) count /= draws;
  return counts;
}

// A binomial frequency of 20000 draws lies within 5 standard deviations but once in two million.
void expect_frequencies(const std::vector<float>& logits, const SamplingOptions& options,
                        const std::vector<double>& probabilities) {
  const std::vector<double> found = frequencies(logits, options);
  for (std::size_t i = 0; i < probabilities.size(); ++i) {
    const double p = probabilities[i];
    EXPECT_NEAR(found[i], p, 5 * std::sqrt(p * (1 - p) / draws)) << "token " << i;
  }
}

std::vector<float> logs(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + 3));
  return logits;
}

const std::vector<double> probabilities = {0.1, 0.4, 0.05, 0.3, 0.15};

TEST(Sampler, GreedyTakesTheFirstOfEquals) {
  SamplingOptions greedy;
  greedy.greedy = true;
  EXPECT_EQ(sample(std::vector<float>{-1, 2, 0, 2}, greedy, 0, 0), 1);
  EXPECT_EQ(sample(std::vector<float>{-3, -2, -2}, greedy, 5, 9), 1);
  EXPECT_EQ(sample(std::vector<float>{0}, greedy, 0, 0), 0);
}

TEST(Sampler, DrawsWithTheProbabilitiesOfTheSoftmax) {
  expect_frequencies(logs(probabilities), {}, probabilities);
}

TEST(Sampler, TemperatureSharpensAndFlattens) {
  SamplingOptions options;
  options.temperature = 0.5;  // probabilities squared, over their sum 0.285
  expect_frequencies(logs(probabilities), options,
                     {0.01 / 0.285, 0.16 / 0.285, 0.0025 / 0.285, 0.09 / 0.285, 0.0225 / 0.285});
  options.temperature = 1e6;
  expect_frequencies(logs(probabilities), options, {0.2, 0.2, 0.2, 0.2, 0.2});
}

TEST(Sampler, TopKKeepsTheMostLikely) {
  SamplingOptions options;
  options.top_k = 2;
  expect_frequencies(logs(probabilities), options, {0, 0.4 / 0.7, 0, 0.3 / 0.7, 0});
  options.top_k = 1;
  expect_frequencies(logs(probabilities), options, {0, 1, 0, 0, 0});
  options.top_k = 9;  // more than there are
  expect_frequencies(logs(probabilities), options, probabilities);
}

TEST(Sampler, TopKTakesTheFirstOfEquals) {
  SamplingOptions options;
  options.top_k = 2;
  expect_frequencies(logs({0.2, 0.4, 0.2, 0.2}), options, {1.0 / 3, 2.0 / 3, 0, 0});
}

// The smallest set that reaches the probability: 0.4 + 0.3 reaches 0.65, 0.4 + 0.3 + 0.15 reaches 0.75.
TEST(Sampler, TopPKeepsTheSmallestSetThatReachesIt) {
  SamplingOptions options;
  options.top_p = 0.65;
  expect_frequencies(logs(probabilities), options, {0, 0.4 / 0.7, 0, 0.3 / 0.7, 0});
  options.top_p = 0.75;
  expect_frequencies(logs(probabilities), options, {0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85});
  options.top_p = 1e-6;
  expect_frequencies(logs(probabilities), options, {0, 1, 0, 0, 0});
}

TEST(Sampler, TopPCountsAmongTheTopK) {
  SamplingOptions options;
  options.top_k = 2;
  options.top_p = 0.5;  // 0.4 / 0.7 alone reaches it
  expect_frequencies(logs(probabilities), options, {0, 1, 0, 0, 0});
}

// More tokens than are sorted at first: what is kept is what sorting all of them keeps.
TEST(Sampler, TopPOfALargeVocabulary) {
  constexpr std::size_t V = 2000;
  std::vector<float> logits(V);
  for (std::size_t i = 0; i < V; ++i) logits[i] = static_cast<float>((i * 7919) % V) * 1e-3f;
  std::vector<double> sorted(V);
  for (std::size_t i = 0; i < V; ++i) sorted[i] = std::exp(static_cast<double>(logits[i]));
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const double total = std::accumulate(sorted.begin(), sorted.end(), 0.0);
  for (const double top_p : {0.05, 0.5, 0.99}) {
    double sum = 0;
    std::size_t kept = 0;
    while (sum < top_p * total) sum += sorted[kept++];
    SamplingOptions options;
    options.top_p = top_p;
    double least = 1e9;
    for (std::uint32_t i = 0; i < 500; ++i)
      least = std::min(
          least,
          std::exp(static_cast<double>(logits[static_cast<std::size_t>(sample(logits, options, 0, i))])));
    EXPECT_GE(least, sorted[kept - 1] * 0.999999) << "top_p " << top_p;
    EXPECT_LE(least, sorted[kept - 1 - kept / 50]) << "top_p " << top_p;
  }
}

// The formula in float64 over all tokens, sorted where some are left out; `share` in [0, 1) of what is kept.
std::int32_t drawn_plainly(const std::vector<float>& logits, const SamplingOptions& options, double share) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto logit = [&](std::int32_t token) -> double { return logits[static_cast<std::size_t>(token)]; };
  const bool all = options.top_p == 1 && (options.top_k == 0 || options.top_k >= std::ssize(logits));
  if (!all) std::ranges::stable_sort(order, std::greater<>(), logit);
  if (options.top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(options.top_k)));
  const double largest = *std::ranges::max_element(logits);
  std::vector<double> weights;
  for (const std::int32_t token : order)
    weights.push_back(std::exp((logit(token) - largest) / options.temperature));
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double kept = 0;
  std::size_t count = 0;
  while (count < weights.size() && (all || kept < options.top_p * total)) kept += weights[count++];
  double left = share * kept;
  for (std::size_t i = 0; i < count; ++i)
    if ((left -= weights[i]) < 0) return order[i];
  return order[count - 1];
}

// Weights in float32 move the limits between tokens a little: a draw in thousands may fall on the other side.
TEST(Sampler, DrawsAsThePlainFormulaDoes) {
  std::mt19937_64 generator(5);
  int draws_of_all = 0, others = 0;
  for (const std::size_t V : {1, 3, 63, 65, 700, 50304})
    for (const double spread : {0.1, 3.0})
      for (const std::int64_t top_k : {0, 1, 50, 1000})
        for (const double top_p : {0.3, 0.9, 1.0}) {
          std::normal_distribution<float> normal(1, static_cast<float>(spread));
          std::vector<float> logits(V);
          for (float& x : logits) x = normal(generator);
          const SamplingOptions options{false, 0.7, top_k, top_p, 1, generator()};
          for (std::uint32_t position = 0; position < (V > 1000 ? 8u : 40u); ++position) {
            const PhiloxWords words = philox4x32({{position, 2u, 0u, 3u}}, options.seed);
            const double share = (words.word[0] + words.word[1] * 0x1p-32) * 0x1p-32;
            others += sample(logits, options, 2, position) != drawn_plainly(logits, options, share);
            ++draws_of_all;
          }
        }
  EXPECT_GT(draws_of_all, 4000);
  EXPECT_LE(others, 2);
}

TEST(Sampler, NoNumbersNoToken) {
  SamplingOptions options;
  const std::vector<float> logits{1, NAN, 2};
  EXPECT_EQ(sample(logits, options, 0, 0), -1);
  options.greedy = true;
  EXPECT_EQ(sample(logits, options, 0, 0), -1);
}

TEST(Sampler, PenalizesRepetition) {
  std::vector<float> logits{2, -1, 0.5f, -3};
  const std::vector<std::int32_t> occurred{0, 3};
  penalize_repetition(logits, occurred, 2.0);
  EXPECT_EQ(logits, (std::vector<float>{1, -1, 0.5f, -6}));
}

TEST(Sampler, ExtremeLogitsDrawWhatIsPossible) {
  const float infinity = std::numeric_limits<float>::infinity();
  expect_frequencies({-infinity, 3e38f, -3e38f}, {}, {0, 1, 0});
  expect_frequencies({-infinity, 0, 0}, {}, {0, 0.5, 0.5});
}

// The draw is a function of seed, sequence and position, and each of them counts.
TEST(Sampler, TheDrawDependsOnSeedSequenceAndPositionAlone) {
  const std::vector<float> logits(1000, 0);
  const auto row = [&](std::uint64_t seed, std::uint32_t sequence, std::uint32_t first) {
    SamplingOptions options;
    options.seed = seed;
    std::vector<std::int32_t> tokens;
    for (std::uint32_t i = 0; i < 20; ++i) tokens.push_back(sample(logits, options, sequence, first + i));
    return tokens;
  };
  const std::vector<std::int32_t> reference = row(1, 0, 0);
  EXPECT_EQ(row(1, 0, 0), reference);
  EXPECT_NE(row(2, 0, 0), reference);
  EXPECT_NE(row(std::uint64_t{1} << 32 | 1, 0, 0), reference);
  EXPECT_NE(row(1, 1, 0), reference);
  const std::vector<std::int32_t> later = row(1, 0, 10);
  EXPECT_TRUE(std::equal(later.begin(), later.begin() + 10, reference.begin() + 10));
}

}  // namespace
}  // namespace flasheva
