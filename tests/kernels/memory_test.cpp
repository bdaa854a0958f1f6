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
  std::mt19937_64 generator_ = generator_of_inputs(11);
};

TEST_F(MemoryTest, ZeroClearsEveryElementOfEveryType) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32, DType::u8})
    for (const std::int64_t size : sizes) {
      TestTensor x(dtype, {size});
      ops_->zero(x);
      EXPECT_EQ(dot(x, x), 0) << name_of(dtype) << " " << size;
    }
}

TEST_F(MemoryTest, CastRoundsToNearestBetweenAllTypes) {
  for (const DType from : on_this_device({DType::f32, DType::bf16, DType::f16, DType::f64}))
    for (const DType to : on_this_device({DType::f32, DType::bf16, DType::f16, DType::f64}))
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

// float16 by its definition: 10 bits of mantissa, exponents from -14 on, 2^-24 apart below.
double value_of_float16(std::uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 10 & 31), mantissa = static_cast<int>(bits & 1023);
  const double magnitude = exponent == 31  ? (mantissa == 0 ? INFINITY : NAN)
                           : exponent == 0 ? std::ldexp(mantissa, -24)
                                           : std::ldexp(1024 + mantissa, exponent - 25);
  return bits >> 15 != 0 ? -magnitude : magnitude;
}
double rounded_to_float16(double x) {
  if (x == 0 || !std::isfinite(x)) return x;
  const double unit = std::ldexp(1, std::max(std::ilogb(x), -14) - 10);
  const double nearest = std::nearbyint(x / unit) * unit;  // ties to even
  return std::fabs(nearest) < 65536 ? nearest : std::copysign(INFINITY, x);
}

// As a scalar and as the device converts.
void expect_float16(Ops& ops, TestTensor in, const std::function<double(std::int64_t)>& expected) {
  TestTensor out(DType::f16, in.shape()), back(DType::f32, in.shape());
  ops.cast(out, in);
  ops.cast(back, out);
  for (const TestTensor& result : {out, back, in.converted(DType::f16)})
    for (std::int64_t i = 0; i < in.size(); ++i) {
      const double value = result.get(i), wanted = expected(i);
      if (std::isnan(wanted))
        ASSERT_TRUE(std::isnan(value)) << i;
      else
        ASSERT_TRUE(value == wanted && std::signbit(value) == std::signbit(wanted))
            << in.get(i) << " became " << value << ", not " << wanted;
    }
}

TEST_F(MemoryTest, CastKeepsEveryFloat16) {
  TestTensor all(DType::f32, {65536});
  for (std::int64_t i = 0; i < all.size(); ++i) all.set(i, value_of_float16(static_cast<std::uint32_t>(i)));
  expect_float16(*ops_, all, [&](std::int64_t i) { return all.get(i); });
}

// Between and beyond all neighbours: a little below, at, and a little above each midpoint, and floats of
// every exponent.
TEST_F(MemoryTest, CastToFloat16RoundsToNearest) {
  std::vector<float> values{65519.996f, 65520, 1e30f, INFINITY, -INFINITY, NAN, 0x1p-149f, -0.0f};
  for (std::uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const auto middle = static_cast<float>((value_of_float16(bits) + value_of_float16(bits + 1)) / 2);
    for (const float x : {std::nextafter(middle, 0.0f), middle, std::nextafter(middle, 1e9f)})
      values.insert(values.end(), {x, -x});
  }
  std::normal_distribution<double> normal;
  for (int exponent = -40; exponent < 40; ++exponent)
    for (int i = 0; i < 1000; ++i)
      values.push_back(static_cast<float>(std::ldexp(normal(generator_), exponent)));
  TestTensor in(DType::f32, {static_cast<std::int64_t>(values.size())});
  for (std::int64_t i = 0; i < in.size(); ++i) in.set(i, values[static_cast<std::size_t>(i)]);
  expect_float16(*ops_, in, [&](std::int64_t i) { return rounded_to_float16(in.get(i)); });
}

// Within 1e-6 of the host's. CUDA's logf may err by one unit in the last place, its sinf and cosf by two,
// which moves none of the normals here, 4.4 at most, by more than two steps of float32: 9.6e-7. Halving is
// exact.
TEST_F(MemoryTest, FillNormalScalesTheStream) {
  for (const DType dtype : on_this_device({DType::f32, DType::f64}))
    for (const std::int64_t size : sizes) {
      TestTensor x(dtype, {size}), half(dtype, {size});
      ops_->fill_normal(x, 1, 99, 4);
      ops_->fill_normal(half, 0.5, 99, 4);
      for (std::int64_t i = 0; i < size; ++i) {
        const double normal = stream_normals(99, 4, static_cast<std::uint64_t>(i / 4)).value[i % 4];
        ASSERT_NEAR(x.get(i), normal, 1e-6) << i;
        ASSERT_EQ(half.get(i), x.get(i) / 2) << i;
      }
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
