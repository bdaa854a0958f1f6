#include <cmath>

#include "tests/kernels/operation_test.h"
#include "tests/kernels/operations.h"

namespace flasheva {
namespace {

// One norm of x, or two: the second's tensors are named weight2, bias2 and so on.
struct TestNorm {
  std::string suffix;
  TestTensor weight, bias, dout, out, dweight, dbias;

  TestNorm(const Tensors& in, const std::string& name_suffix, DType dtype, double begin)
      : suffix(name_suffix),
        weight(in.at("weight" + suffix).converted(dtype)),
        bias(in.at("bias" + suffix).converted(dtype)),
        dout(in.at("dout" + suffix).converted(dtype)),
        out(dtype, dout.shape()),
        dweight(filled(accumulation_type(dtype), weight.shape(), begin)),
        dbias(dweight) {}

  Norm output() { return {out, weight, bias}; }
  NormGradients gradients() { return {dweight, dbias, dout, weight}; }
  void give(Tensors& results) const {
    for (const auto& [name, tensor] : {std::pair{"out", out}, {"dweight", dweight}, {"dbias", dbias}})
      results.emplace(name + suffix, tensor);
  }
};

Tensors run(Ops& ops, DType dtype, const Tensors& in, const Scalars& scalars, double begin) {
  TestTensor x = in.at("x").converted(dtype), dx = filled(dtype, x.shape(), begin);
  TestTensor mean(accumulation_type(dtype), {x.shape()[0]}), rstd = mean;
  std::vector<TestNorm> norms{{in, "", dtype, begin}};
  if (in.count("weight2")) norms.emplace_back(in, "2", dtype, begin);
  const bool two = norms.size() == 2;
  ops.layernorm_forward(norms[0].output(), two ? norms[1].output() : Norm{}, mean, rstd, x,
                        scalars.at("eps"));
  ops.layernorm_backward(dx, norms[0].gradients(), two ? norms[1].gradients() : NormGradients{}, x, mean,
                         rstd);
  Tensors results{{"mean", mean}, {"rstd", rstd}, {"dx", dx}};
  for (const TestNorm& norm : norms) norm.give(results);
  return results;
}

Tensors plain_norm(const Tensors& in, const Scalars& scalars, const std::string& suffix, const RoundTo& r) {
  const TestTensor &x = in.at("x"), &weight = in.at("weight" + suffix), &bias = in.at("bias" + suffix),
                   &dout = in.at("dout" + suffix);
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
  dweight = dweight.converted(r.dtype);
  dbias = dbias.converted(r.dtype);
  return {{"mean", mean},
          {"rstd", rstd},
          {"dx", dx},
          {"out" + suffix, out},
          {"dweight" + suffix, dweight},
          {"dbias" + suffix, dbias}};
}

Tensors plain(const Tensors& in, const Scalars& scalars, const RoundTo& r) {
  Tensors results = plain_norm(in, scalars, "", r);
  if (!in.count("weight2")) return results;
  Tensors second = plain_norm(in, scalars, "2", r);
  TestTensor& dx = results.at("dx");
  for (std::int64_t i = 0; i < dx.size(); ++i) dx.set(i, r(dx.get(i) + second.at("dx").get(i)));
  results.merge(second);
  return results;
}

}  // namespace

const Operation layernorm{"layernorm", run, {"dx", "dweight", "dbias", "dweight2", "dbias2"}, plain};

namespace {

OperationCase sized(std::int64_t rows, std::int64_t width, double mean = 0, int norms = 1) {
  const auto inputs = [=](std::mt19937_64& g) {
    Tensors in{{"x", TestTensor::random(DType::f64, {rows, width}, g, 1, mean)}};
    for (int norm = 0; norm < norms; ++norm) {
      const std::string suffix = norm == 0 ? "" : "2";
      in.emplace("weight" + suffix, TestTensor::random(DType::f64, {width}, g, 1, 1));
      in.emplace("bias" + suffix, TestTensor::random(DType::f64, {width}, g));
      in.emplace("dout" + suffix, TestTensor::random(DType::f64, {rows, width}, g));
    }
    return in;
  };
  const std::string name = "rows " + std::to_string(rows) + " width " + std::to_string(width);
  return {name + (norms == 2 ? " two norms" : ""), &layernorm, inputs, {{"eps", 1e-5}}};
}

OperationCase two(std::int64_t rows, std::int64_t width, double mean = 0) {
  return sized(rows, width, mean, 2);
}

INSTANTIATE_TEST_SUITE_P(LayerNorm, GradientTest,
                         testing::Values(sized(1, 7), sized(3, 17), sized(2, 33), two(1, 7), two(3, 17)),
                         name_of_parameter);
INSTANTIATE_TEST_SUITE_P(LayerNorm, PrecisionTest,
                         testing::Values(sized(1, 3), sized(3, 7), sized(7, 17, 0.5), sized(17, 33),
                                         sized(33, 300), sized(300, 300), sized(50, 64), sized(5, 1030),
                                         two(7, 17, 0.5), two(33, 300), two(50, 64), two(5, 1030),
                                         two(3, 5128)),
                         name_of_parameter);

class LayerNormTest : public testing::Test {
 protected:
  std::mt19937_64 generator_ = generator_of_inputs(1);
  std::unique_ptr<Ops> ops_ = make_test_ops();
  Tensors in_ = two(5, 9).inputs(generator_);
  TestTensor x_ = in_.at("x").converted(DType::f32), dx_ = filled(DType::f32, {5, 9}, 0),
             mean_ = filled(DType::f32, {5}, 0), rstd_ = filled(DType::f32, {5}, 1);
  TestNorm first_{in_, "", DType::f32, 0}, second_{in_, "2", DType::f32, 0};
};

TEST_F(LayerNormTest, GradientsMayBeAbsent) {
  TestTensor dx_alone = dx_;
  TestNorm first_alone = first_, second_alone = second_;
  const NormGradients second_frozen{{}, {}, second_.dout, second_.weight};
  ops_->layernorm_backward(dx_, first_.gradients(), second_.gradients(), x_, mean_, rstd_);
  ops_->layernorm_backward(dx_alone, first_alone.gradients(), second_frozen, x_, mean_, rstd_);
  ops_->layernorm_backward({}, second_alone.gradients(), {}, x_, mean_, rstd_);
  EXPECT_EQ(relative_error(dx_alone, dx_), 0);
  EXPECT_EQ(relative_error(first_alone.dweight, first_.dweight), 0);
  EXPECT_EQ(relative_error(first_alone.dbias, first_.dbias), 0);
  EXPECT_EQ(relative_error(second_alone.dweight, second_.dweight), 0);
  EXPECT_EQ(relative_error(second_alone.dbias, second_.dbias), 0);
}

TEST_F(LayerNormTest, TwoNormsAtOnceGiveWhatEachGivesAlone) {
  TestNorm first_alone = first_, second_alone = second_;
  ops_->layernorm_forward(first_.output(), second_.output(), mean_, rstd_, x_, 1e-5);
  ops_->layernorm_forward(first_alone.output(), {}, mean_, rstd_, x_, 1e-5);
  ops_->layernorm_forward(second_alone.output(), {}, mean_, rstd_, x_, 1e-5);
  EXPECT_EQ(relative_error(first_.out, first_alone.out), 0);
  EXPECT_EQ(relative_error(second_.out, second_alone.out), 0);
}

TEST_F(LayerNormTest, RefusesWrongShapesAndTypes) {
  const auto forward = [&](const Norm& norm, const Norm& second) {
    ops_->layernorm_forward(norm, second, mean_, rstd_, x_, 1e-5);
  };
  TestTensor narrow(DType::f32, {8}), half(DType::bf16, {9});
  EXPECT_THROW(forward({first_.out, narrow, first_.bias}, {}), std::logic_error);
  EXPECT_THROW(forward({first_.out, first_.weight, half}, {}), std::logic_error);
  EXPECT_THROW(forward(first_.output(), {second_.out, narrow, second_.bias}), std::logic_error);
  const NormGradients without_bias{first_.dweight, {}, first_.dout, first_.weight};
  EXPECT_THROW(ops_->layernorm_backward({}, without_bias, {}, x_, mean_, rstd_), std::logic_error);
}

}  // namespace
}  // namespace flasheva
