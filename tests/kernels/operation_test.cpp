#include "tests/kernels/operation_test.h"

#include <algorithm>
#include <cmath>

namespace flasheva {

namespace {

double norm(const TestTensor& x) { return std::sqrt(dot(x, x)); }

bool is_floating(const TestTensor& x) { return TestTensor(x).view().dtype == DType::f64; }

// sum over the outputs Y of Y dY.
double loss_of(const Tensors& results, const Tensors& inputs) {
  double loss = 0;
  for (const auto& [name, result] : results)
    if (inputs.count("d" + name)) loss += dot(result, inputs.at("d" + name));
  return loss;
}

bool bitwise_equal(const TestTensor& a, const TestTensor& b) {
  if (a.size() != b.size()) return false;
  for (std::int64_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<std::uint64_t>(a.get(i)) != std::bit_cast<std::uint64_t>(b.get(i))) return false;
  return true;
}

}  // namespace

Tensors OperationTest::inputs(DType dtype) const {
  std::mt19937_64 generator = generator_of_inputs(7);
  Tensors tensors = test_case().inputs(generator);
  for (auto& [name, tensor] : tensors)
    if (is_floating(tensor)) tensor = tensor.converted(dtype).converted(DType::f64);
  return tensors;
}

// Central differences with a step of 1e-5 err by about 1e-10, relative, through the third derivative and by
// 1e-16 / 1e-5 through rounding; sums of a thousand terms of either sign make that 1e-8 at most.
TEST_P(GradientTest, MatchesCentralDifferences) {
  FLASHEVA_NEEDS_FLOAT64();
  Tensors in = inputs(DType::f64);
  const Tensors results = run(DType::f64, in);
  int gradients = 0;
  for (auto& [name, input] : in) {
    if (!is_floating(input) || !results.count("d" + name)) continue;
    const TestTensor expected = central_differences(input, [&] { return loss_of(run(DType::f64, in), in); });
    EXPECT_LE(error_of(results.at("d" + name), expected), 1e-7) << "d" << name;
    ++gradients;
  }
  EXPECT_GT(gradients, 0);
}

TEST_P(PrecisionTest, Float32IsNearFloat64) {
  const Tensors in = inputs(DType::f32);
  const Tensors expected = run_exactly(in);
  for (const auto& [name, result] : run(DType::f32, in))
    EXPECT_LE(error_of(result, expected.at(name)), test_case().float32_bound) << name;
}

// Results that stay in float32 whatever the compute type may have that type's error where the plain formula
// happens to be exact.
TEST_P(PrecisionTest, LowPrecisionIsWithinTwiceTheErrorOfThePlainFormula) {
  for (const DType dtype : low_precisions) {
    const Tensors in = inputs(dtype), expected = run_exactly(in);
    const Tensors plain = operation().plain(in, test_case().scalars, RoundTo{dtype});
    for (const auto& [name, result] : run(dtype, in)) {
      SCOPED_TRACE(name + " in " + name_of(dtype));
      ASSERT_TRUE(plain.count(name));
      const double plain_error = error_of(plain.at(name), expected.at(name));
      EXPECT_LE(error_of(result, expected.at(name)), std::max(2 * plain_error, test_case().float32_bound));
      EXPECT_LE(plain_error, 0.2) << "the plain formula itself must be near";
    }
  }
}

TEST_P(PrecisionTest, AddsWhereItSaysSo) {
  FLASHEVA_NEEDS_FLOAT64();
  const Tensors in = inputs(DType::f64);
  const double begin = 3;
  const Tensors from_zero = run(DType::f64, in, 0), from_begin = run(DType::f64, in, begin);
  for (const auto& [name, result] : from_begin) {
    const bool added = std::count(operation().added.begin(), operation().added.end(), name) > 0;
    TestTensor expected = from_zero.at(name);
    for (std::int64_t i = 0; i < expected.size(); ++i) expected.set(i, expected.get(i) + (added ? begin : 0));
    EXPECT_LE(relative_error(result, expected), 1e-13) << name;
  }
}

TEST_P(PrecisionTest, IsBitwiseTheSameOnEveryRun) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const Tensors in = inputs(dtype), first = run(dtype, in);
    for (int repetition = 0; repetition < 3; ++repetition)
      for (const auto& [name, result] : run(dtype, in))
        EXPECT_TRUE(bitwise_equal(result, first.at(name))) << name;
  }
}

std::string name_of_parameter(const testing::TestParamInfo<OperationCase>& info) {
  std::string name = info.param.name;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
}

double error_of(const TestTensor& x, const TestTensor& reference) {
  constexpr double zero_by_construction = 1e-9;
  if (norm(reference) > zero_by_construction) return relative_error(x, reference);
  return relative_error(x, filled(DType::f64, reference.shape(), 0));
}

TestTensor filled(DType dtype, Shape shape, double value) {
  TestTensor out(dtype, shape);
  for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, value);
  return out;
}

}  // namespace flasheva
