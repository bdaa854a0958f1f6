#include "src/io/ingest_progress.h"

#include <gtest/gtest.h>

namespace flasheva {
namespace {

constexpr std::int64_t gibibyte = std::int64_t{1} << 30;

TEST(IngestProgress, SaysHowFarAndHowLong) {
  EXPECT_EQ(text_of_progress(10 * gibibyte, {}, {}, 0), "read 0 B of 10.0 GiB (0.0 %), 0 tokens");
  EXPECT_EQ(text_of_progress(10 * gibibyte, {}, {gibibyte, 300'000}, 100),
            "read 1.0 GiB of 10.0 GiB (10.0 %), 300000 tokens, 3000 tokens/s, 15 min left");
  EXPECT_EQ(text_of_progress(10 * gibibyte, {}, {5 * gibibyte, 1}, 18'060),
            "read 5.0 GiB of 10.0 GiB (50.0 %), 1 tokens, 0 tokens/s, 5 h 01 min left");
}

TEST(IngestProgress, WhatAnEarlierRunDidIsNotInTheSpeed) {
  EXPECT_EQ(text_of_progress(1000, {400, 5000}, {400, 5000}, 9),
            "read 400 B of 1000 B (40.0 %), 5000 tokens");
  EXPECT_EQ(text_of_progress(1000, {400, 5000}, {700, 5600}, 60),
            "read 700 B of 1000 B (70.0 %), 5600 tokens, 10 tokens/s, 60 s left");
}

}  // namespace
}  // namespace flasheva
