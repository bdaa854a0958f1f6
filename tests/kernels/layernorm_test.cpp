#include <cmath>

#include "tests/kernels/operation_test.h"
#include "tests/kernels/operations.h"

namespace flasheva {
namespace {

Tensors run(Ops& ops, DType dtype, const Tensors& in, const Scalars& scalars, double begin) {
  TestTensor x = in.at("x").converted(dtype), weight = in.at("weight").converted(dtype),
             bias = in.at("bias").converted(dtype), dout = in.at("dout").converted(dtype);
  const DType acc = accumulation_type(dtype);
  TestTensor out(dtype, x.shape()), mean(acc, {x.shape()[0]}), rstd(acc, {x.shape()[0]});
  ops.layernorm_forward(out, mean, rstd, x, weight, bias, scalars.at("eps"));
  TestTensor dx = filled(dtype, x.shape(), begin), dweight = filled(acc, weight.shape(), begin),
             dbias = filled(acc, bias.shape(), begin);
  ops.layernorm_backward(dx, dweight, dbias, dout, x, weight, mean, rstd);
  return {{"out", out}, {"mean", mean}, {"rstd", rstd}, {"dx", dx}, {"dweight", dweight}, {"dbias", dbias}};
}

Tensors plain_bf16(const Tensors& in, const Scalars& scalars) {
  const auto r = rounded;
  const TestTensor &x = in.at("x"), &weight = in.at("weight"), &bias = in.at("bias"), &dout = in.at("dout");
  const std::int64_t rows = x.shape()[0], width = x.shape()[1];
  TestTensor out(DType::f64, x.shape()), mean(DType::f64, {rows}), rstd(DType::f64, {rows}),
      dx(DType::f64, x.shape()), dweight = filled(DType::f64, {width}, 0), dbias = dweight;
  for (std::int64_t n = 0; n < rows; ++n) {
    const std::int64_t row = n * width;
    double sum = 0, squares = 0, g_sum = 0, g_xhat_sum = 0;
    for (std::int64_t i = 0; i < width; ++i) sum += x.get(row + i);
    const double mu = r(sum / width);
    for (std::int64_t i = 0; i < width; ++i) squares += r(r(x.get(row + i) - mu) * r(x.get(row + i) - mu));
    const double sigma = r(1 / r(std::sqrt(r(r(squares / width) + scalars.at("eps")))));
    const auto xhat = [&](std::int64_t i) { return r(r(x.get(row + i) - mu) * sigma); };
    const auto g = [&](std::int64_t i) { return r(dout.get(row + i) * weight.get(i)); };
    for (std::int64_t i = 0; i < width; ++i) {
      out.set(row + i, r(r(xhat(i) * weight.get(i)) + bias.get(i)));
      g_sum += g(i);
      g_xhat_sum += r(g(i) * xhat(i));
      dweight.set(i, dweight.get(i) + r(dout.get(row + i) * xhat(i)));
      dbias.set(i, dbias.get(i) + dout.get(row + i));
    }
    const double g_mean = r(g_sum / width), g_xhat_mean = r(g_xhat_sum / width);
    for (std::int64_t i = 0; i < width; ++i)
      dx.set(row + i, r(sigma * r(r(g(i) - g_mean) - r(xhat(i) * g_xhat_mean))));
    mean.set(n, mu);
    rstd.set(n, sigma);
  }
  dweight = dweight.converted(DType::bf16);
  dbias = dbias.converted(DType::bf16);
  return {{"out", out}, {"mean", mean}, {"rstd", rstd}, {"dx", dx}, {"dweight", dweight}, {"dbias", dbias}};
}

}  // namespace

const Operation layernorm{"layernorm", run, {"dx", "dweight", "dbias"}, plain_bf16};

namespace {

OperationCase sized(std::int64_t rows, std::int64_t width, double mean = 0) {
  const auto inputs = [=](std::mt19937_64& g) -> Tensors {
    return {{"x", TestTensor::random(DType::f64, {rows, width}, g, 1, mean)},
            {"weight", TestTensor::random(DType::f64, {width}, g, 1, 1)},
            {"bias", TestTensor::random(DType::f64, {width}, g)},
            {"dout", TestTensor::random(DType::f64, {rows, width}, g)}};
  };
  const std::string name = "rows " + std::to_string(rows) + " width " + std::to_string(width);
  return {name, &layernorm, inputs, {{"eps", 1e-5}}};
}

INSTANTIATE_TEST_SUITE_P(LayerNorm, GradientTest, testing::Values(sized(1, 7), sized(3, 17), sized(2, 33)),
                         name_of_parameter);
INSTANTIATE_TEST_SUITE_P(LayerNorm, PrecisionTest,
                         testing::Values(sized(1, 3), sized(3, 7), sized(7, 17, 0.5), sized(17, 33),
                                         sized(33, 300), sized(300, 300), sized(50, 64), sized(5, 1030)),
                         name_of_parameter);

class LayerNormTest : public testing::Test {
 protected:
  std::mt19937_64 generator_{1};
  std::unique_ptr<Ops> ops_ = make_test_ops();
  TestTensor x_ = TestTensor::random(DType::f32, {5, 9}, generator_), dout_ = x_,
             weight_ = TestTensor::random(DType::f32, {9}, generator_),
             mean_ = TestTensor::zeros(DType::f32, {5}), rstd_ = filled(DType::f32, {5}, 1);
};

TEST_F(LayerNormTest, GradientsMayBeAbsent) {
  TestTensor dx = TestTensor::zeros(DType::f32, {5, 9}), dx_alone = dx;
  TestTensor dweight = TestTensor::zeros(DType::f32, {9}), dbias = dweight, dweight_alone = dweight;
  TestTensor dbias_alone = dbias;
  ops_->layernorm_backward(dx, dweight, dbias, dout_, x_, weight_, mean_, rstd_);
  ops_->layernorm_backward(dx_alone, {}, {}, dout_, x_, weight_, mean_, rstd_);
  ops_->layernorm_backward({}, dweight_alone, dbias_alone, dout_, x_, weight_, mean_, rstd_);
  EXPECT_EQ(relative_error(dx_alone, dx), 0);
  EXPECT_EQ(relative_error(dweight_alone, dweight), 0);
  EXPECT_EQ(relative_error(dbias_alone, dbias), 0);
}

TEST_F(LayerNormTest, RefusesWrongShapesAndTypes) {
  TestTensor out = x_, narrow(DType::f32, {8}), half(DType::bf16, {9}), dweight(DType::f32, {9});
  EXPECT_THROW(ops_->layernorm_forward(out, mean_, rstd_, x_, narrow, weight_, 1e-5), std::logic_error);
  EXPECT_THROW(ops_->layernorm_forward(out, mean_, rstd_, x_, weight_, half, 1e-5), std::logic_error);
  EXPECT_THROW(ops_->layernorm_backward({}, dweight, {}, dout_, x_, weight_, mean_, rstd_), std::logic_error);
}

}  // namespace
}  // namespace flasheva
