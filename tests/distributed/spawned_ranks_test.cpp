#include "tests/support/spawned_ranks.h"

#include <gtest/gtest.h>

namespace flasheva {
namespace {

TEST(SpawnedRanks, OneThatEndsIsMissedAtOnce) {
  if (!SpawnedRank::here()) {
    std::string program = "rank", filter = "--gtest_filter=SpawnedRanks.OneThatEndsIsMissedAtOnce";
    char* const arguments[] = {program.data(), filter.data(), nullptr};
    EXPECT_EQ(spawn_ranks(3, arguments), 0);
    return;
  }
  ::alarm(20);  // a rank that waits for ever
  SpawnedRank rank;
  std::vector<double> values{1.0 + rank.rank()};
  rank.all_reduce_sum(values);
  ASSERT_EQ(values[0], 1 + 2 + 3);
  if (rank.rank() == 1) return;
  EXPECT_THROW(rank.all_reduce_sum(values), std::logic_error);
}

}  // namespace
}  // namespace flasheva
