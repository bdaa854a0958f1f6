#include <cmath>

#include "tests/kernels/operation_test.h"
#include "tests/support/device_tensors.h"

namespace flasheva {
namespace {

// Products of float32 are exact in float64; what remains is the rounding of a float64 sum.
TEST(SumOfSquares, IsExactToFloat64) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  std::mt19937_64 generator = generator_of_inputs(5);
  for (const DType dtype : on_this_device({DType::f32, DType::f64}))
    for (const std::int64_t size : {1, 3, 7, 17, 33, 300, 16384, 16385, 100003}) {
      TestTensor x = TestTensor::random(dtype, {size}, generator);
      EXPECT_NEAR(ops->sum_of_squares(x), dot(x, x), 1e-12 * dot(x, x)) << size;
    }
}

TEST(SumOfSquares, IsTheSameOnAnyNumberOfThreads) {
  std::mt19937_64 generator = generator_of_inputs(6);
  TestTensor x = TestTensor::random(DType::f32, {100003}, generator);
  const double one = make_cpu_ops(1)->sum_of_squares(x);
  for (const int threads : {2, 3, 8}) EXPECT_EQ(make_cpu_ops(threads)->sum_of_squares(x), one) << threads;
}

TEST(SumOfSquares, DoesNotOverflowAndKeepsNan) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TestTensor x = filled(DType::f32, {5}, 1e30);
  EXPECT_NEAR(ops->sum_of_squares(x), 5e60, 1e-6 * 5e60);
  x.set(3, NAN);
  EXPECT_TRUE(std::isnan(ops->sum_of_squares(x)));
}

// As of a rank that has no share of the gradients.
TEST(SumOfSquares, OfNoTensorsAreNone) { EXPECT_NO_THROW(make_device_ops()->sums_of_squares({}, {})); }

TEST(SumOfSquares, TakesLowPrecision) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  for (const DType dtype : low_precisions) {
    TestTensor x = filled(dtype, {40000}, 1.5);
    EXPECT_EQ(ops->sum_of_squares(x), 40000 * 2.25);
    x.set(39999, INFINITY);
    EXPECT_EQ(ops->sum_of_squares(x), INFINITY);
  }
}

// Of awkward sizes, at multiples of 16 bytes and elsewhere, neighbours of one type and of several, more of
// them than go into two launches; large and small elements, so that the order of additions shows.
TEST(SumOfSquares, OfManyTensorsAreThoseOfEach) {
  const std::unique_ptr<Ops> ops = make_device_ops();
  std::vector<DeviceTensor> arenas;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    std::mt19937_64 generator = generator_of_inputs(8);
    TestTensor values = TestTensor::random(dtype, {100000}, generator);
    for (std::int64_t i = 0; i < values.size(); ++i) values.set(i, std::ldexp(values.get(i), i % 24 - 12));
    arenas.emplace_back(*ops, values.view());
  }
  std::vector<Tensor> tensors;
  std::int64_t end = 0;
  for (int i = 0; i < 50; ++i)
    for (const std::int64_t count : {1, 17, 0, 16384, 3, 35000, 300, 8}) {
      const Tensor arena = arenas[i < 40 ? 0 : tensors.size() % 3];
      if (end + count > arena.size()) end = i % 2;
      tensors.push_back(arena.rows(end, count));
      end += count;
    }
  std::vector<double> sums(tensors.size(), -1);
  ops->sums_of_squares(sums, tensors);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    EXPECT_EQ(sums[i], ops->sum_of_squares(tensors[i])) << i;
    if (tensors[i].size() == 0) continue;
    TestTensor elements = copy_of(*ops, tensors[i]);
    EXPECT_EQ(sums[i], ops->sum_of_squares(DeviceTensor(*ops, elements))) << i;
    EXPECT_NEAR(sums[i], dot(elements, elements), 1e-12 * sums[i]) << i;
  }
  EXPECT_THROW(ops->sums_of_squares({sums.data(), 2}, tensors), std::logic_error);
}

TEST(SquaredDistance, IsExactToFloat64) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  std::mt19937_64 generator = generator_of_inputs(7);
  for (const DType dtype : on_this_device({DType::f32, DType::bf16, DType::f16, DType::f64}))
    for (const std::int64_t size : {1, 7, 300, 16385, 100003}) {
      TestTensor x = TestTensor::random(dtype, {size}, generator),
                 y = TestTensor::random(dtype, {size}, generator);
      double expected = 0;
      for (std::int64_t i = 0; i < size; ++i) expected += std::pow(x.get(i) - y.get(i), 2);
      EXPECT_NEAR(ops->squared_distance(x, y), expected, 1e-12 * expected) << size;
      EXPECT_EQ(ops->squared_distance(x, x), 0);
      y.set(size - 1, NAN);
      EXPECT_TRUE(std::isnan(ops->squared_distance(x, y))) << size;
    }
}

TEST(SquaredDistance, RefusesTensorsOfOtherShapesAndTypes) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TestTensor x(DType::f32, {4}), longer(DType::f32, {5}), wide(DType::f64, {4});
  EXPECT_THROW(ops->squared_distance(x, longer), std::logic_error);
  EXPECT_THROW(ops->squared_distance(x, wide), std::logic_error);
}

}  // namespace
}  // namespace flasheva
