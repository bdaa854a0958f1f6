#include <cmath>
#include <cstring>

#include "tests/kernels/operation_test.h"
#include "tests/support/device_tensors.h"

namespace flasheva {
namespace {

constexpr double weight_decay = 0.1;

struct State {
  TestTensor weight, m, v;
  TestTensor low_precision;

  State(DType dtype, const TestTensor& begin) : State(dtype, begin, TestTensor{}) {}
  State(DType dtype, const TestTensor& begin, DType low) : State(dtype, begin, {low, begin.shape()}) {}

  void update(Ops& ops, TestTensor& gradient, const AdamWConfig& config) {
    const AdamWParameter parameter{weight, low_precision, m, v, gradient, weight_decay};
    ops.adamw({&parameter, 1}, config);
  }

 private:
  State(DType dtype, const TestTensor& begin, TestTensor low)
      : weight(begin.converted(dtype)),
        m(TestTensor::zeros(dtype, begin.shape())),
        v(m),
        low_precision(std::move(low)) {}
};

// Torch's formula, element by element in float64.
void update_plainly(State& state, const TestTensor& gradient, const AdamWConfig& c) {
  for (std::int64_t i = 0; i < gradient.size(); ++i) {
    const double g = gradient.get(i) * c.gradient_scale;
    double weight = state.weight.get(i) * (1 - c.lr * weight_decay);
    const double m = c.beta1 * state.m.get(i) + (1 - c.beta1) * g;
    const double v = c.beta2 * state.v.get(i) + (1 - c.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(c.beta1, c.step)), v_hat = v / (1 - std::pow(c.beta2, c.step));
    weight -= c.lr * m_hat / (std::sqrt(v_hat) + c.eps);
    state.weight.set(i, weight);
    state.m.set(i, m);
    state.v.set(i, v);
  }
}

constexpr AdamWConfig first_step{1e-2, 0.9, 0.999, 1e-8, 1, 0.5};

class AdamWTest : public testing::TestWithParam<std::int64_t> {
 protected:
  AdamWConfig config_ = first_step;
  std::unique_ptr<Ops> ops_ = make_test_ops();
  std::mt19937_64 generator_ = generator_of_inputs(5);
  TestTensor begin_ = TestTensor::random(DType::f32, {GetParam()}, generator_);
};

TEST_P(AdamWTest, FollowsTheFormulaOverSteps) {
  State expected(DType::f64, begin_), float64(DType::f64, begin_), float32(DType::f32, begin_, DType::bf16);
  for (config_.step = 1; config_.step <= 5; ++config_.step) {
    TestTensor gradient = TestTensor::random(DType::f32, begin_.shape(), generator_, 0.1);
    TestTensor gradient64 = gradient.converted(DType::f64);
    update_plainly(expected, gradient, config_);
    if (device_has_float64()) float64.update(*ops_, gradient64, config_);
    float32.update(*ops_, gradient, config_);
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
    with_copy.update(*ops_, gradient, config_);
    without.update(*ops_, gradient, config_);
    EXPECT_EQ(relative_error(with_copy.weight, without.weight), 0);
    EXPECT_EQ(relative_error(with_copy.v, without.v), 0);
    EXPECT_EQ(relative_error(with_copy.low_precision, with_copy.weight.converted(low)), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, AdamWTest, testing::Values(1, 3, 17, 300, 50001));

// What AdamW updates, on the device and one behind the other as in a model's memory.
struct Arena {
  Arena(Ops& ops, std::int64_t size, DType low)
      : weight(filled(ops, size, 1, 1)),
        low_precision(ops, low, {size}),
        m(filled(ops, size, 0.1, 2)),
        v(filled(ops, size, 0, 3)),
        gradient(filled(ops, size, 0.1, 4)) {
    ops.zero(low_precision);
  }
  static DeviceTensor filled(Ops& ops, std::int64_t size, double scale, std::uint32_t stream) {
    DeviceTensor tensor(ops, DType::f32, {size});
    ops.fill_normal(tensor, scale, 7, stream);
    return tensor;
  }
  AdamWParameter part(std::int64_t first, std::int64_t count, double decay) const {
    const auto of = [&](const DeviceTensor& all) { return Tensor(all).rows(first, count); };
    return {of(weight), of(low_precision), of(m), of(v), of(gradient), decay};
  }

  DeviceTensor weight, low_precision, m, v, gradient;
};

void expect_the_same_bits(Ops& ops, const Arena& a, const Arena& b) {
  for (const auto tensor : {&Arena::weight, &Arena::low_precision, &Arena::m, &Arena::v}) {
    TestTensor x = copy_of(ops, a.*tensor), y = copy_of(ops, b.*tensor);
    EXPECT_EQ(std::memcmp(x.view().data, y.view().data, x.view().bytes()), 0);
  }
}

// Of awkward sizes, with and without decay, at multiples of 16 bytes and elsewhere, with gaps between that
// must stay as they are; more of them than go into two launches.
TEST(AdamWOfManyTest, GivesEachWhatItGetsAlone) {
  const std::unique_ptr<Ops> ops = make_device_ops();
  struct Part {
    std::int64_t first, count;
  };
  std::vector<Part> parts;
  std::int64_t end = 0;
  for (int i = 0; i < 14; ++i)
    for (const std::int64_t count : {1, 300, 0, 4097, 7, 64, 12288, 3, 1029, 16}) {
      parts.push_back({end, count});
      end += count + (i % 3 == 0 ? 0 : 64 - count % 64);
    }
  for (const DType low : low_precisions) {
    const Arena together(*ops, end, low), alone(*ops, end, low);
    AdamWConfig config = first_step;
    for (config.step = 1; config.step <= 2; ++config.step) {
      std::vector<AdamWParameter> parameters;
      for (std::size_t i = 0; i < parts.size(); ++i) {
        const double decay = i % 3 == 0 ? 0 : 0.1 * static_cast<double>(i);
        parameters.push_back(together.part(parts[i].first, parts[i].count, decay));
        const AdamWParameter one = alone.part(parts[i].first, parts[i].count, decay);
        ops->adamw({&one, 1}, config);
      }
      ops->adamw(parameters, config);
    }
    expect_the_same_bits(*ops, together, alone);
  }
}

TEST(AdamWOfManyTest, SharesOfATensorRoundAsTheWhole) {
  const std::unique_ptr<Ops> ops = make_device_ops();
  constexpr std::int64_t size = 20003;
  const Arena whole(*ops, size, DType::bf16), shares(*ops, size, DType::bf16);
  const AdamWParameter all = whole.part(0, size, weight_decay);
  ops->adamw({&all, 1}, first_step);
  std::vector<AdamWParameter> parameters;
  std::int64_t first = 0;
  for (const std::int64_t end : {1, 6, 777, 4096, 9999, 17000, 20003}) {
    parameters.push_back(shares.part(first, end - first, weight_decay));
    first = end;
  }
  ops->adamw(parameters, first_step);
  expect_the_same_bits(*ops, whole, shares);
}

class AdamWPreconditionTest : public testing::Test {
 protected:
  template <class... Parameters>
  void expect_refused(const Parameters&... parameters) {
    const AdamWParameter all[] = {parameters...};
    EXPECT_THROW(ops_->adamw(all, config_), std::logic_error);
  }

  std::unique_ptr<Ops> ops_ = make_test_ops();
  AdamWConfig config_;
  TestTensor w_ = TestTensor::zeros(DType::f32, {5}), shorter_{DType::f32, {4}}, half_{DType::bf16, {5}};
};

TEST_F(AdamWPreconditionTest, RefusesWrongSizesAndTypes) {
  expect_refused(AdamWParameter{w_, {}, w_, shorter_, w_});
  expect_refused(AdamWParameter{w_, w_, w_, w_, w_});
  expect_refused(AdamWParameter{half_, {}, half_, half_, half_});
  config_.step = 0;
  expect_refused(AdamWParameter{w_, {}, w_, w_, w_});
}

TEST_F(AdamWPreconditionTest, RefusesParametersOfDifferentTypes) {
  TestTensor wide = TestTensor::zeros(DType::f64, {5}), other_half(DType::f16, {5});
  const AdamWParameter with_copy{w_, half_, w_, w_, w_};
  expect_refused(AdamWParameter{w_, {}, w_, w_, w_}, AdamWParameter{wide, {}, wide, wide, wide});
  expect_refused(with_copy, AdamWParameter{w_, other_half, w_, w_, w_});
  expect_refused(with_copy, AdamWParameter{w_, {}, w_, w_, w_});
  expect_refused(AdamWParameter{w_, {}, w_, w_, w_}, with_copy);
}

}  // namespace
}  // namespace flasheva
