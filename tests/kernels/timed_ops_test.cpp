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
  std::mt19937_64 generator = generator_of_inputs(3);
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

TEST(TimedOpsTest, CountsTheBytesOfAllParametersThatAdamWUpdates) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TimedOps timed(*ops);
  TestTensor small = TestTensor::zeros(DType::f32, {3}), m = small, v = small, gradient = small;
  TestTensor large = TestTensor::zeros(DType::f32, {50}), large_m = large, large_v = large, g = large;
  TestTensor copy(DType::bf16, {3}), large_copy(DType::bf16, {50});
  const AdamWParameter parameters[] = {{small, copy, m, v, gradient, 0.1},
                                       {large, large_copy, large_m, large_v, g, 0}};
  timed.adamw(parameters, {});
  ASSERT_EQ(timed.totals().count("adamw"), 1u);
  EXPECT_EQ(timed.totals().at("adamw").calls, 1);
  EXPECT_EQ(timed.totals().at("adamw").bytes, 30 * (3 + 50));  // as kernels/cuda/README.md counts
}

// Windows of 4 tokens, chunks of 2, two heads of 32. Ten queries see 10, 10 and 3 tokens in their windows,
// and those of the second and third window 4 x 2 and 2 x 4 chunks.
TEST(TimedOpsTest, CountsWhatTheQueriesOfAttentionSee) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TimedOps timed(*ops);
  std::mt19937_64 generator = generator_of_inputs(4);
  const auto random = [&](const Shape& shape) { return TestTensor::random(DType::f32, shape, generator); };
  const Shape tokens{3, 2, 10, 32}, chunks{3, 2, 5, 32};
  TestTensor q = random(tokens), k = random(tokens), v = random(tokens), kappa = random(chunks);
  TestTensor beta = random(chunks), dout = random({3, 10, 64});
  TestTensor out(DType::f32, {3, 10, 64}), log_sum_exp(DType::f32, {3, 2, 10});
  TestTensor dq(DType::f32, tokens), dk(DType::f32, tokens), dv(DType::f32, tokens);
  TestTensor dkappa(DType::f32, chunks), dbeta(DType::f32, chunks);
  AttentionConfig config;
  config.visibility = {AttentionKind::eva, WindowKind::block, ChunkVisibility::outside_window, 4, 2};
  timed.attention_forward(out, log_sum_exp, q, k, v, kappa, beta, {}, config);
  timed.attention_backward(dq, dk, dv, dkappa, dbeta, {}, dout, out, log_sum_exp, q, k, v, kappa, beta, {},
                           config);
  const double pairs = 10 + 10 + 3 + 4 * 2 + 2 * 4, dimensions = 3 * 2 * 32;
  EXPECT_EQ(timed.totals().at("attention_forward 3x2x10x32").flops, 4 * dimensions * pairs);
  EXPECT_EQ(timed.totals().at("attention_backward 3x2x10x32").flops, 10 * dimensions * pairs);

  // The last two queries alone, as of a prompt that is taken in segments: 1 and 2 tokens, 4 chunks each.
  TestTensor last_q = random({3, 2, 2, 32}), last_out(DType::f32, {3, 2, 64});
  TestTensor last_log_sum_exp(DType::f32, {3, 2, 2});
  config.first_query = 8;
  timed.attention_forward(last_out, last_log_sum_exp, last_q, k, v, kappa, beta, {}, config);
  EXPECT_EQ(timed.totals().at("attention_forward 3x2x2x32").flops, 4 * dimensions * (1 + 2 + 2 * 4));
}

}  // namespace
}  // namespace flasheva
