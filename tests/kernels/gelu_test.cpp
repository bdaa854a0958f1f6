#include <cmath>

#include "tests/kernels/operation_test.h"
#include "tests/kernels/operations.h"

namespace flasheva {
namespace {

Tensors run(Ops& ops, DType dtype, const Tensors& in, const Scalars&, double) {
  TestTensor x = in.at("x").converted(dtype), dout = in.at("dout").converted(dtype);
  TestTensor out(dtype, x.shape()), dx(dtype, x.shape());
  ops.gelu_forward(out, x);
  ops.gelu_backward(dx, dout, x);
  return {{"out", out}, {"dx", dx}};
}

Tensors plain(const Tensors& in, const Scalars&, const RoundTo& r) {
  const TestTensor &x = in.at("x"), &dout = in.at("dout");
  TestTensor out(DType::f64, x.shape()), dx(DType::f64, x.shape());
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const double x_i = x.get(i), erf = r(std::erf(r(x_i / std::sqrt(2.0))));
    const double cumulative = r(0.5 * r(1 + erf));
    const double density = r(r(std::exp(r(-0.5 * r(x_i * x_i)))) * r(1 / std::sqrt(2 * M_PI)));
    out.set(i, r(x_i * cumulative));
    dx.set(i, r(dout.get(i) * r(cumulative + r(x_i * density))));
  }
  return {{"out", out}, {"dx", dx}};
}

}  // namespace

const Operation gelu{"gelu", run, {}, plain};

namespace {

OperationCase sized(std::int64_t rows, std::int64_t width, double scale = 1.5) {
  const auto inputs = [=](std::mt19937_64& g) -> Tensors {
    return {{"x", TestTensor::random(DType::f64, {rows, width}, g, scale)},
            {"dout", TestTensor::random(DType::f64, {rows, width}, g)}};
  };
  return {"rows " + std::to_string(rows) + " width " + std::to_string(width) + " scale " +
              std::to_string(static_cast<int>(10 * scale)) + " tenths",
          &gelu,
          inputs,
          {},
          1e-6};
}

INSTANTIATE_TEST_SUITE_P(Gelu, GradientTest, testing::Values(sized(1, 1), sized(17, 7)), name_of_parameter);
INSTANTIATE_TEST_SUITE_P(Gelu, PrecisionTest,
                         testing::Values(sized(1, 1), sized(1, 3), sized(7, 17), sized(33, 33),
                                         sized(300, 300), sized(33, 17, 0.01), sized(33, 17, 20)),
                         name_of_parameter);

// Element by element over the whole range, not in the norm: eight roundings of 2^-24 of the exact value's
// scale.
TEST(GeluTest, EveryFloat32ValueIsNear) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  const std::int64_t count = 400001;
  TestTensor x(DType::f32, {count}), out = x, dx = x, one = filled(DType::f32, {count}, 1);
  for (std::int64_t i = 0; i < count; ++i) x.set(i, -10 + i * 5e-5);
  ops->gelu_forward(out, x);
  ops->gelu_backward(dx, one, x);
  double error = 0, gradient_error = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double x_i = x.get(i), cumulative = std::erfc(-x_i / std::sqrt(2.0)) / 2;
    const double density = std::exp(-x_i * x_i / 2) / std::sqrt(2 * M_PI);
    error = std::max(error, std::fabs(out.get(i) - x_i * cumulative) / std::max(std::fabs(x_i), 1e-30));
    gradient_error = std::max(gradient_error, std::fabs(dx.get(i) - (cumulative + x_i * density)));
  }
  EXPECT_LE(error, 8 * 0x1p-24);
  EXPECT_LE(gradient_error, 8 * 0x1p-24);
}

TEST(GeluTest, KeepsExtremesAndWorksInPlace) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TestTensor x(DType::f32, {5}), out = x, dout = filled(DType::f32, {5}, 2);
  const double values[] = {-1e30, -40, 0, 40, NAN}, expected[] = {0, 0, 0, 40, NAN},
               slope[] = {0, 0, 1, 2, NAN};
  for (int i = 0; i < 5; ++i) x.set(i, values[i]);
  ops->gelu_forward(out, x);
  ops->gelu_backward(dout, dout, x);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(out.get(i), expected[i]) << values[i];
  for (int i = 0; i < 4; ++i) EXPECT_EQ(dout.get(i), slope[i]) << values[i];
  EXPECT_TRUE(std::isnan(out.get(4)) && std::isnan(dout.get(4)));
}

TEST(GeluTest, RefusesWrongShapesAndTypes) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TestTensor x(DType::f32, {5}), shorter(DType::f32, {4}), half(DType::bf16, {5});
  EXPECT_THROW(ops->gelu_forward(shorter, x), std::logic_error);
  EXPECT_THROW(ops->gelu_forward(half, x), std::logic_error);
  EXPECT_THROW(ops->gelu_backward(x, half, x), std::logic_error);
}

}  // namespace
}  // namespace flasheva
