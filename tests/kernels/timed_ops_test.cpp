#include "kernels/timed_ops.h"

#include <gtest/gtest.h>

#include "tests/kernels/operations.h"
#include "tests/support/tensors.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

TEST(TimedOpsTest, CallsTheOperationAndCountsItByShape) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TimedOps timed(*ops);
  std::mt19937_64 generator(3);
  TestTensor x = TestTensor::random(DType::f32, {9, 5}, generator);
  TestTensor weight = TestTensor::random(DType::f32, {6, 5}, generator);
  TestTensor out(DType::f32, {9, 6}), expected(DType::f32, {9, 6});
  ops->linear_forward(expected, x, weight, {});
  for (int i = 0; i < 3; ++i) timed.linear_forward(out, x, weight, {});
  EXPECT_EQ(relative_error(out, expected), 0);

  ASSERT_EQ(timed.totals().count("linear_forward 9x5x6"), 1u);
  const TimedOps::Total& total = timed.totals().at("linear_forward 9x5x6");
  EXPECT_EQ(total.calls, 3);
  EXPECT_EQ(total.flops, 3 * 2.0 * 9 * 5 * 6);
  EXPECT_EQ(total.bytes, 3 * 4.0 * (9 * 6 + 9 * 5 + 6 * 5));
  EXPECT_GT(total.seconds, 0);

  EXPECT_EQ(timed.sum_of_squares(x), ops->sum_of_squares(x));
  EXPECT_EQ(timed.squared_distance(x, x), 0);
  EXPECT_EQ(timed.totals().size(), 3u);
  timed.clear();
  EXPECT_TRUE(timed.totals().empty());
}

}  // namespace
}  // namespace flasheva
