// Philox's words are those of cuRAND, whose header has the generator for the host too.
#include <vector_types.h>
#define QUALIFIERS static inline
#include <curand_philox4x32_x.h>
#include <gtest/gtest.h>

#include <random>

#include "kernels/philox.h"

namespace flasheva {
namespace {

TEST(Curand, MakesTheSameWords) {
  std::mt19937 random(4);
  const auto any = [&] { return static_cast<std::uint32_t>(random()); };
  for (int i = 0; i < 10'000; ++i) {
    const uint4 counter{any(), any(), any(), any()};
    const uint2 key{any(), any()};
    const uint4 expected = curand_Philox4x32_10(counter, key);
    const PhiloxWords words =
        philox4x32({{counter.x, counter.y, counter.z, counter.w}}, std::uint64_t{key.y} << 32 | key.x);
    const std::uint32_t expected_words[] = {expected.x, expected.y, expected.z, expected.w};
    for (int j = 0; j < 4; ++j)
      ASSERT_EQ(words.word[j], expected_words[j]) << "counter " << i << " word " << j;
  }
}

}  // namespace
}  // namespace flasheva
