#include <cmath>

#include "tests/kernels/operation_test.h"
#include "tests/kernels/operations.h"

namespace flasheva {
namespace {

// x is a sum that ends with a bias of 0, whose gradient is dbias.
Tensors run(Ops& ops, DType dtype, const Tensors& in, const Scalars&, double begin) {
  TestTensor x = in.at("x").converted(dtype), dout = in.at("dout").converted(dtype);
  const std::int64_t columns = x.shape()[x.shape().rank() - 1];
  TestTensor out(dtype, x.shape()), dx(dtype, x.shape());
  TestTensor dbias = filled(accumulation_type(dtype), {columns}, begin);
  const auto as_rows = [&](Tensor tensor) { return tensor.reshaped({x.size() / columns, columns}); };
  ops.gelu_forward(out, x);
  ops.gelu_backward(as_rows(dx), dbias, as_rows(dout), as_rows(x));
  return {{"out", out}, {"dx", dx}, {"dbias", dbias}};
}

Tensors plain(const Tensors& in, const Scalars&, const RoundTo& r) {
  const TestTensor &x = in.at("x"), &dout = in.at("dout");
  TestTensor out(DType::f64, x.shape()), dx(DType::f64, x.shape()),
      dbias = filled(DType::f64, {x.shape()[1]}, 0);
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const double x_i = x.get(i), erf = r(std::erf(r(x_i / std::sqrt(2.0))));
    const double cumulative = r(0.5 * r(1 + erf));
    const double density = r(r(std::exp(r(-0.5 * r(x_i * x_i)))) * r(1 / std::sqrt(2 * M_PI)));
    out.set(i, r(x_i * cumulative));
    dx.set(i, r(dout.get(i) * r(cumulative + r(x_i * density))));
    dbias.set(i % dbias.size(), dbias.get(i % dbias.size()) + dx.get(i));
  }
  return {{"out", out}, {"dx", dx}, {"dbias", dbias.converted(r.dtype)}};
}

}  // namespace

const Operation gelu{"gelu", run, {"dbias"}, plain};

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
  TestTensor x(DType::f32, {1, count}), out = x, dx = x, one = filled(DType::f32, {1, count}, 1);
  for (std::int64_t i = 0; i < count; ++i) x.set(i, -10 + i * 5e-5);
  ops->gelu_forward(out, x);
  ops->gelu_backward(dx, {}, one, x);
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
  TestTensor x(DType::f32, {1, 5}), out = x, dout = filled(DType::f32, {1, 5}, 2);
  const double values[] = {-1e30, -40, 0, 40, NAN}, expected[] = {0, 0, 0, 40, NAN},
               slope[] = {0, 0, 1, 2, NAN};
  for (int i = 0; i < 5; ++i) x.set(i, values[i]);
  ops->gelu_forward(out, x);
  ops->gelu_backward(dout, {}, dout, x);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(out.get(i), expected[i]) << values[i];
  for (int i = 0; i < 4; ++i) EXPECT_FLOAT_EQ(dout.get(i), slope[i]) << values[i];
  EXPECT_TRUE(std::isnan(out.get(4)) && std::isnan(dout.get(4)));
}

TEST(GeluTest, RefusesWrongShapesAndTypes) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TestTensor x(DType::f32, {2, 5}), shorter(DType::f32, {2, 4}), half(DType::bf16, {2, 5});
  TestTensor sums(DType::f32, {5}), narrow(DType::f32, {4});
  EXPECT_THROW(ops->gelu_forward(shorter, x), std::logic_error);
  EXPECT_THROW(ops->gelu_forward(half, x), std::logic_error);
  EXPECT_THROW(ops->gelu_backward(x, sums, half, x), std::logic_error);
  EXPECT_THROW(ops->gelu_backward(x, narrow, x, x), std::logic_error);
}

// The bias's gradient, by central differences over the bias added to x.
TEST(GeluTest, GivesTheGradientOfTheBiasBefore) {
  FLASHEVA_NEEDS_FLOAT64();
  const std::unique_ptr<Ops> ops = make_test_ops();
  std::mt19937_64 generator = generator_of_inputs(5);
  const std::int64_t rows = 150, width = 9;
  TestTensor sum = TestTensor::random(DType::f64, {rows, width}, generator), x = sum, out = sum, dx = sum;
  TestTensor dout = TestTensor::random(DType::f64, {rows, width}, generator);
  TestTensor bias = TestTensor::random(DType::f64, {width}, generator),
             dbias = filled(DType::f64, {width}, 0);
  const auto loss = [&] {
    for (std::int64_t i = 0; i < x.size(); ++i) x.set(i, sum.get(i) + bias.get(i % width));
    ops->gelu_forward(out, x);
    return dot(out, dout);
  };
  loss();
  ops->gelu_backward(dx, dbias, dout, x);
  EXPECT_LE(relative_error(dbias, central_differences(bias, loss)), 1e-7);
}

}  // namespace
}  // namespace flasheva
