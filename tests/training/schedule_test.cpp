#include "src/training/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace flasheva {
namespace {

constexpr double lr = 2e-3;

double at(ScheduleKind kind, std::int64_t step, std::int64_t steps, std::int64_t warmup,
          double min_lr_ratio = 0.1) {
  return learning_rate({kind, warmup, min_lr_ratio}, lr, step, steps);
}

constexpr ScheduleKind kinds[] = {ScheduleKind::cosine, ScheduleKind::linear, ScheduleKind::constant};

TEST(Schedule, WarmupRisesInEqualPartsAndEndsAtTheRate) {
  for (const ScheduleKind kind : kinds) {
    for (std::int64_t t = 0; t < 4; ++t)
      EXPECT_DOUBLE_EQ(at(kind, t, 20, 4), lr * static_cast<double>(t + 1) / 4) << to_string(kind) << t;
    EXPECT_DOUBLE_EQ(at(kind, 4, 20, 4), lr) << to_string(kind);  // u = 0
  }
}

TEST(Schedule, WithoutWarmupTheFirstStepHasTheWholeRate) {
  for (const ScheduleKind kind : kinds) EXPECT_DOUBLE_EQ(at(kind, 0, 20, 0), lr) << to_string(kind);
}

// u = 1/4, 1/2, 3/4 after a warmup of 4 in 20 steps; lr_min = lr / 10.
TEST(Schedule, Cosine) {
  const double half_sqrt2 = std::sqrt(2.0) / 2, low = 0.1 * lr, range = 0.9 * lr;
  EXPECT_DOUBLE_EQ(at(ScheduleKind::cosine, 8, 20, 4), low + range * (1 + half_sqrt2) / 2);
  EXPECT_DOUBLE_EQ(at(ScheduleKind::cosine, 12, 20, 4), low + range / 2);
  EXPECT_DOUBLE_EQ(at(ScheduleKind::cosine, 16, 20, 4), low + range * (1 - half_sqrt2) / 2);
  EXPECT_DOUBLE_EQ(at(ScheduleKind::cosine, 12, 20, 4, 0.0), lr / 2);
}

TEST(Schedule, LinearFallsTowardsTheLeastRate) {
  EXPECT_DOUBLE_EQ(at(ScheduleKind::linear, 8, 20, 4), lr - 0.9 * lr / 4);
  EXPECT_DOUBLE_EQ(at(ScheduleKind::linear, 19, 20, 4), lr - 0.9 * lr * 15 / 16);
  EXPECT_DOUBLE_EQ(at(ScheduleKind::linear, 19, 20, 4, 1.0), lr);
}

TEST(Schedule, ConstantStays) { EXPECT_DOUBLE_EQ(at(ScheduleKind::constant, 19, 20, 4), lr); }

// A phase cut within its warmup, or exactly at its end, divides by no zero.
TEST(Schedule, WarmupAsLongAsThePhaseOrLonger) {
  for (const ScheduleKind kind : kinds) {
    EXPECT_DOUBLE_EQ(at(kind, 3, 4, 4), lr) << to_string(kind);
    EXPECT_DOUBLE_EQ(at(kind, 1, 2, 4), lr / 2) << to_string(kind);
    EXPECT_DOUBLE_EQ(at(kind, 0, 1, 1), lr) << to_string(kind);
  }
}

}  // namespace
}  // namespace flasheva
