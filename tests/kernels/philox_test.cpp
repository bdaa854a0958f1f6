#include "kernels/philox.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

namespace flasheva {
namespace {

struct KnownAnswer {
  PhiloxWords counter;
  std::uint64_t seed;
  PhiloxWords words;
};

// Published with Random123 (kat_vectors, philox4x32 with 10 rounds).
TEST(Philox, KnownAnswers) {
  const KnownAnswer cases[] = {
      {{{0, 0, 0, 0}}, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
      {{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}},
       0xffffffffffffffffu,
       {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
      {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
       0x299f31d0a4093822u,
       {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
  };
  for (const KnownAnswer& expected : cases) {
    const PhiloxWords words = philox4x32(expected.counter, expected.seed);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(words.word[i], expected.words.word[i]);
  }
}

// The same Box-Muller in float64: float32's rounding of the angle (2 pi 2^-24) times a radius below 7 bounds
// it.
TEST(Philox, NormalsFollowBoxMuller) {
  for (std::uint32_t i = 0; i < 1000; ++i) {
    const PhiloxWords words = philox4x32({{i, 0, 0, 0}}, 7);
    const FourNormals normals = normals_of(words);
    for (int pair = 0; pair < 4; pair += 2) {
      const double u = words.word[pair] * 0x1p-32 + 0x1p-33;
      const double angle = 2 * M_PI * (words.word[pair + 1] * 0x1p-32 + 0x1p-33);
      const double radius = std::sqrt(-2 * std::log(u));
      // d radius = d u / radius, d u = 2^-24; where the radius itself is that small, about 2^-12.
      const double bound = 7 * 2 * M_PI * 0x1p-24 + 0x1p-24 / std::max(radius, 0x1p-12);
      EXPECT_NEAR(normals.value[pair], radius * std::sin(angle), bound);
      EXPECT_NEAR(normals.value[pair + 1], radius * std::cos(angle), bound);
    }
  }
}

TEST(Philox, ExtremeWordsGiveFiniteNormals) {
  for (const std::uint32_t x : {0u, 1u, 0x80000000u, 0xffffffffu})
    for (const std::uint32_t y : {0u, 1u, 0x80000000u, 0xffffffffu})
      for (const float value : normals_of({{x, y, y, x}}).value) {
        EXPECT_TRUE(std::isfinite(value));
        EXPECT_LT(std::fabs(value), 7.0f);
      }
}

// Mean, variance and fourth moment of 400,000 normals, each within five of its standard errors.
TEST(Philox, MomentsAreThoseOfTheNormalDistribution) {
  const int count = 400000;
  double sum = 0, squares = 0, fourths = 0;
  for (std::uint64_t block = 0; block < count / 4; ++block)
    for (const double value : stream_normals(42, 3, block).value) {
      sum += value;
      squares += value * value;
      fourths += value * value * value * value;
    }
  EXPECT_NEAR(sum / count, 0, 5 / std::sqrt(count));
  EXPECT_NEAR(squares / count, 1, 5 * std::sqrt(2.0 / count));
  EXPECT_NEAR(fourths / count, 3, 5 * std::sqrt(96.0 / count));
}

// Every coordinate of the key changes the draw, and no neighbours meet.
TEST(Philox, KeysDoNotCollide) {
  std::set<std::vector<float>> seen;
  int draws = 0;
  const auto draw = [&](const FourNormals& normals) {
    seen.insert(std::vector<float>(normals.value, normals.value + 4));
    ++draws;
  };
  const std::uint32_t head_dim = 6;  // two blocks a chunk
  for (const std::uint64_t seed : {1ull, 1ull << 32})
    for (const std::uint32_t step : {0u, 1u, 0xffffffffu})
      for (const std::uint32_t layer : {0u, 1u, 4095u})
        for (const std::uint32_t head : {0u, 1u, 4095u})
          for (const std::uint32_t sequence : {0u, 1u, (1u << 24) - 1})
            for (std::uint32_t chunk = 0; chunk < 3; ++chunk)
              for (std::uint32_t j = 0; j < 2; ++j)
                draw(chunk_noise(seed, step, layer, sequence, head, chunk, head_dim, j));
  for (const std::uint64_t seed : {1ull, 1ull << 32})
    for (const std::uint32_t stream : {0u, 1u, 0xffffffffu})
      for (const std::uint64_t block : {0ull, 1ull, 1ull << 32}) draw(stream_normals(seed, stream, block));
  EXPECT_EQ(static_cast<int>(seen.size()), draws);
}

}  // namespace
}  // namespace flasheva
