#include <cmath>

#include "tests/kernels/operation_test.h"

namespace flasheva {
namespace {

struct State {
  TestTensor weight, m, v;
  TestTensor low_precision;

  State(DType dtype, const TestTensor& begin, DType low = DType::bf16)
      : weight(begin.converted(dtype)),
        m(TestTensor::zeros(dtype, begin.shape())),
        v(m),
        low_precision(low, begin.shape()) {}
};

// Torch's formula, element by element in float64.
void update_plainly(State& state, const TestTensor& gradient, const AdamWConfig& c) {
  for (std::int64_t i = 0; i < gradient.size(); ++i) {
    const double g = gradient.get(i) * c.gradient_scale;
    double weight = state.weight.get(i) * (1 - c.lr * c.weight_decay);
    const double m = c.beta1 * state.m.get(i) + (1 - c.beta1) * g;
    const double v = c.beta2 * state.v.get(i) + (1 - c.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(c.beta1, c.step)), v_hat = v / (1 - std::pow(c.beta2, c.step));
    weight -= c.lr * m_hat / (std::sqrt(v_hat) + c.eps);
    state.weight.set(i, weight);
    state.m.set(i, m);
    state.v.set(i, v);
  }
}

class AdamWTest : public testing::TestWithParam<std::int64_t> {
 protected:
  AdamWConfig config_{1e-2, 0.9, 0.999, 1e-8, 0.1, 1, 0.5};
  std::unique_ptr<Ops> ops_ = make_test_ops();
  std::mt19937_64 generator_{5};
  TestTensor begin_ = TestTensor::random(DType::f32, {GetParam()}, generator_);
};

TEST_P(AdamWTest, FollowsTheFormulaOverSteps) {
  State expected(DType::f64, begin_), float64(DType::f64, begin_), float32(DType::f32, begin_);
  for (config_.step = 1; config_.step <= 5; ++config_.step) {
    TestTensor gradient = TestTensor::random(DType::f32, begin_.shape(), generator_, 0.1);
    TestTensor gradient64 = gradient.converted(DType::f64);
    update_plainly(expected, gradient, config_);
    if (device_has_float64()) ops_->adamw(float64.weight, {}, float64.m, float64.v, gradient64, config_);
    ops_->adamw(float32.weight, float32.low_precision, float32.m, float32.v, gradient, config_);
  }
  EXPECT_LE(relative_error(float32.weight, expected.weight), 1e-6);
  EXPECT_LE(relative_error(float32.m, expected.m), 1e-6);
  EXPECT_LE(relative_error(float32.v, expected.v), 1e-6);
  EXPECT_EQ(relative_error(float32.low_precision, float32.weight.converted(DType::bf16)), 0);
  if (!device_has_float64()) return;
  EXPECT_LE(relative_error(float64.weight, expected.weight), 1e-13);
  EXPECT_LE(relative_error(float64.m, expected.m), 1e-13);
  EXPECT_LE(relative_error(float64.v, expected.v), 1e-13);
}

TEST_P(AdamWTest, TheCopyChangesNothing) {
  for (const DType low : low_precisions) {
    State with_copy(DType::f32, begin_, low), without(DType::f32, begin_);
    TestTensor gradient = TestTensor::random(DType::f32, begin_.shape(), generator_, 0.1);
    ops_->adamw(with_copy.weight, with_copy.low_precision, with_copy.m, with_copy.v, gradient, config_);
    ops_->adamw(without.weight, {}, without.m, without.v, gradient, config_);
    EXPECT_EQ(relative_error(with_copy.weight, without.weight), 0);
    EXPECT_EQ(relative_error(with_copy.v, without.v), 0);
    EXPECT_EQ(relative_error(with_copy.low_precision, with_copy.weight.converted(low)), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, AdamWTest, testing::Values(1, 3, 17, 300, 50001));

TEST(AdamWPreconditionTest, RefusesWrongSizesAndTypes) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TestTensor w = TestTensor::zeros(DType::f32, {5}), shorter(DType::f32, {4}), half(DType::bf16, {5});
  AdamWConfig config;
  EXPECT_THROW(ops->adamw(w, {}, w, shorter, w, config), std::logic_error);
  EXPECT_THROW(ops->adamw(w, w, w, w, w, config), std::logic_error);
  EXPECT_THROW(ops->adamw(half, {}, half, half, half, config), std::logic_error);
  config.step = 0;
  EXPECT_THROW(ops->adamw(w, {}, w, w, w, config), std::logic_error);
}

}  // namespace
}  // namespace flasheva
