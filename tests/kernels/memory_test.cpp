#include <cmath>
#include <limits>

#include "kernels/philox.h"
#include "tests/kernels/operation_test.h"

namespace flasheva {
namespace {

constexpr std::int64_t sizes[] = {1, 3, 7, 17, 33, 300, 50001};

class MemoryTest : public testing::Test {
 protected:
  std::unique_ptr<Ops> ops_ = make_test_ops();
  std::mt19937_64 generator_{11};
};

TEST_F(MemoryTest, ZeroClearsEveryElementOfEveryType) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::u8})
    for (const std::int64_t size : sizes) {
      TestTensor x(dtype, {size});
      ops_->zero(x);
      EXPECT_EQ(dot(x, x), 0) << name_of(dtype) << " " << size;
    }
}

TEST_F(MemoryTest, CastRoundsToNearestBetweenAllTypes) {
  for (const DType from : {DType::f32, DType::bf16, DType::f64})
    for (const DType to : {DType::f32, DType::bf16, DType::f64})
      for (const std::int64_t size : sizes) {
        TestTensor in = TestTensor::random(from, {size}, generator_), out(to, {size});
        ops_->cast(out, in);
        EXPECT_EQ(relative_error(out, in.converted(to)), 0)
            << name_of(from) << " " << name_of(to) << " " << size;
      }
}

// Ties go to the even neighbour; infinities and NaN stay.
TEST_F(MemoryTest, CastToBf16AtTheEdges) {
  const double values[] = {0x1.01p0, 0x1.03p0, 0x1.010002p0, -0.0, 3.4e38, INFINITY, -INFINITY, NAN};
  const double expected[] = {1, 0x1.04p0, 0x1.02p0, -0.0, INFINITY, INFINITY, -INFINITY, NAN};
  TestTensor in(DType::f32, {8}), out(DType::bf16, {8});
  for (int i = 0; i < 8; ++i) in.set(i, values[i]);
  ops_->cast(out, in);
  for (int i = 0; i < 7; ++i) EXPECT_EQ(out.get(i), expected[i]) << values[i];
  EXPECT_TRUE(std::signbit(out.get(3)));
  EXPECT_TRUE(std::isnan(out.get(7)));
}

TEST_F(MemoryTest, FillNormalScalesTheStream) {
  for (const DType dtype : {DType::f32, DType::f64})
    for (const std::int64_t size : sizes) {
      TestTensor x(dtype, {size});
      ops_->fill_normal(x, 0.5, 99, 4);
      for (std::int64_t i = 0; i < size; ++i)
        ASSERT_EQ(x.get(i), 0.5 * stream_normals(99, 4, static_cast<std::uint64_t>(i / 4)).value[i % 4]) << i;
    }
}

TEST_F(MemoryTest, FillNormalDependsOnSeedAndStream) {
  TestTensor a(DType::f32, {4}), other_seed = a, other_stream = a;
  ops_->fill_normal(a, 1, 1, 1);
  ops_->fill_normal(other_seed, 1, 2, 1);
  ops_->fill_normal(other_stream, 1, 1, 2);
  EXPECT_GT(relative_error(other_seed, a), 0.01);
  EXPECT_GT(relative_error(other_stream, a), 0.01);
}

TEST_F(MemoryTest, RefusesWrongShapesAndTypes) {
  TestTensor x = TestTensor::zeros(DType::f32, {5}), shorter(DType::f32, {4}), whole(DType::i32, {5}),
             half(DType::bf16, {5});
  EXPECT_THROW(ops_->zero({}), std::logic_error);
  EXPECT_THROW(ops_->cast(shorter, x), std::logic_error);
  EXPECT_THROW(ops_->cast(whole, x), std::logic_error);
  EXPECT_THROW(ops_->fill_normal(half, 1, 1, 1), std::logic_error);
}

}  // namespace
}  // namespace flasheva
