#include "src/core/duration.h"

#include <gtest/gtest.h>

namespace flasheva {
namespace {

TEST(FormatDuration, TakesTheLargestUnitThatSaysEnough) {
  EXPECT_EQ(format_duration(0.9), "0 s");
  EXPECT_EQ(format_duration(119.9), "119 s");
  EXPECT_EQ(format_duration(120), "2 min");
  EXPECT_EQ(format_duration(2 * 3600 - 1), "119 min");
  EXPECT_EQ(format_duration(3 * 3600 + 5 * 60), "3 h 05 min");
  EXPECT_EQ(format_duration(48 * 3600 - 1), "47 h 59 min");
  EXPECT_EQ(format_duration(19.9 * 86400), "19 days");
  EXPECT_EQ(format_duration(1e30), "11574074074 days");
}

}  // namespace
}  // namespace flasheva
