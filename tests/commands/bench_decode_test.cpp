#include "src/commands/bench_decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <vector>

namespace flasheva {
namespace {

std::vector<std::int64_t> positions(std::int64_t new_tokens, int steps) {
  BenchDecodeOptions options;
  options.new_tokens = new_tokens;
  options.steps = steps;
  std::vector<std::int64_t> all;
  for (int step = 0; step < steps; ++step) all.push_back(timed_position(options, step) - options.context);
  return all;
}

// Chunks of 16 tokens, windows of 256.
TEST(BenchDecode, TimesEveryPlaceInAChunkAsOften) {
  for (const std::int64_t new_tokens : {16, 256, 1024, 10240}) {
    std::map<std::int64_t, int> steps_at;
    double in_window = 0;
    for (const std::int64_t position : positions(new_tokens, 16)) {
      ++steps_at[position % 16];
      in_window += static_cast<double>(position % 256) / 16;
    }
    EXPECT_EQ(steps_at.size(), 16u) << new_tokens;
    if (new_tokens > 16) {
      EXPECT_NEAR(in_window, 127.5, 8) << new_tokens;
    }
  }
}

TEST(BenchDecode, TimesNewTokensAlone) {
  for (const std::int64_t new_tokens : {1, 2, 3, 7, 16, 100, 1000})
    for (const int steps : {1, 2, 3, 16, 17})
      EXPECT_THAT(positions(new_tokens, steps),
                  testing::Each(testing::AllOf(testing::Ge(0), testing::Lt(new_tokens))))
          << steps;
}

}  // namespace
}  // namespace flasheva
