#include <cmath>

#include "tests/kernels/operation_test.h"
#include "tests/kernels/operations.h"

namespace flasheva {
namespace {

Tensors run(Ops& ops, DType dtype, const Tensors& in, const Scalars& scalars, double) {
  TestTensor logits = in.at("logits").converted(dtype), targets = in.at("targets");
  TestTensor mask = in.count("mask") ? in.at("mask") : TestTensor();
  const Shape rows = targets.shape();
  TestTensor losses(accumulation_type(dtype), rows), correct(DType::u8, rows);
  ops.cross_entropy_forward(losses, correct, logits, targets, mask);
  TestTensor dlogits = logits, losses_again(accumulation_type(dtype), rows),
             scale = filled(accumulation_type(dtype), {1}, scalars.at("scale"));
  ops.cross_entropy_backward(dlogits, losses_again, targets, mask, scale);
  return {{"losses", losses}, {"correct", correct}, {"dlogits", dlogits}, {"losses again", losses_again}};
}

Tensors plain(const Tensors& in, const Scalars& scalars, const RoundTo& r) {
  const TestTensor &logits = in.at("logits"), &targets = in.at("targets");
  const std::int64_t rows = logits.shape()[0], vocabulary = logits.shape()[1];
  TestTensor losses = filled(DType::f64, {rows}, 0), correct = losses,
             dlogits = filled(DType::f64, logits.shape(), 0);
  for (std::int64_t n = 0; n < rows; ++n) {
    if (in.count("mask") && in.at("mask").get(n) == 0) continue;
    const auto z = [&](std::int64_t v) { return logits.get(n * vocabulary + v); };
    std::int64_t best = 0;
    for (std::int64_t v = 1; v < vocabulary; ++v)
      if (z(v) > z(best)) best = v;
    double sum = 0;
    for (std::int64_t v = 0; v < vocabulary; ++v) sum += r(std::exp(r(z(v) - z(best))));
    const auto target = static_cast<std::int64_t>(targets.get(n));
    losses.set(n, r(r(std::log(r(sum))) - r(z(target) - z(best))));
    correct.set(n, best == target);
    for (std::int64_t v = 0; v < vocabulary; ++v) {
      const double probability = r(r(std::exp(r(z(v) - z(best)))) / r(sum));
      dlogits.set(n * vocabulary + v, r(r(probability - (v == target)) * scalars.at("scale")));
    }
  }
  return {{"losses", losses}, {"correct", correct}, {"dlogits", dlogits}, {"losses again", losses}};
}

}  // namespace

const Operation cross_entropy{"cross_entropy", run, {}, plain};

namespace {

constexpr double scale = 0.25;

// Every third row is masked out. dlosses makes dlogits the gradient of sum(losses) * scale.
OperationCase sized(std::int64_t rows, std::int32_t vocabulary, bool masked = false, double spread = 2) {
  const auto inputs = [=](std::mt19937_64& g) {
    Tensors tensors{{"logits", TestTensor::random(DType::f64, {rows, vocabulary}, g, spread)},
                    {"targets", TestTensor::random_tokens({rows}, vocabulary, g)},
                    {"dlosses", filled(DType::f64, {rows}, scale)}};
    if (masked) {
      tensors["mask"] = filled(DType::u8, {rows}, 1);
      for (std::int64_t n = 0; n < rows; n += 3) tensors["mask"].set(n, 0);
    }
    return tensors;
  };
  const std::string name = "rows " + std::to_string(rows) + " vocabulary " + std::to_string(vocabulary) +
                           (masked ? " masked" : "") + " spread " + std::to_string(static_cast<int>(spread));
  return {name, &cross_entropy, inputs, {{"scale", scale}}};
}

INSTANTIATE_TEST_SUITE_P(CrossEntropy, GradientTest,
                         testing::Values(sized(1, 1), sized(3, 7), sized(7, 33, true)), name_of_parameter);
INSTANTIATE_TEST_SUITE_P(CrossEntropy, PrecisionTest,
                         testing::Values(sized(1, 1), sized(1, 3), sized(3, 7, true), sized(17, 33),
                                         sized(33, 300, true), sized(300, 256), sized(17, 300, false, 30),
                                         sized(7, 5003, true)),
                         name_of_parameter);

class CrossEntropyTest : public testing::Test {
 protected:
  std::unique_ptr<Ops> ops_ = make_test_ops();
  TestTensor losses_{DType::f32, {1}}, correct_{DType::u8, {1}}, target_ = filled(DType::i32, {1}, 0);
};

// Logits far above exp's range, maxima in every block, equal logits.
TEST_F(CrossEntropyTest, LargeLogitsDoNotOverflow) {
  TestTensor logits = filled(DType::f32, {1, 9000}, 1000);
  for (const std::int64_t place : {0, 5, 2047, 2048, 8999}) {
    logits.set(place, 1100);
    target_.set(0, static_cast<double>(place));
    ops_->cross_entropy_forward(losses_, correct_, logits, target_, {});
    EXPECT_NEAR(losses_.get(0), 0, 1e-6);
    EXPECT_EQ(correct_.get(0), 1);
    logits.set(place, 1000);
    ops_->cross_entropy_forward(losses_, correct_, logits, target_, {});
    EXPECT_NEAR(losses_.get(0), std::log(9000.0), 1e-4);  // log(9000) + 1000 - 1000: 2^-24 of 1000
    EXPECT_EQ(correct_.get(0), place == 0) << "the first of equals";
  }
}

// Two equal maxima, in one vector of the row or in two; rows begin at any address.
TEST_F(CrossEntropyTest, TheFirstOfEqualLogitsIsTheMostLikely) {
  constexpr std::int64_t rows = 9, vocabulary = 1101;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const std::int64_t other : {0, 40, 41, 42, 43, 44, 45, 46, 47, 48, 600, 1100}) {
      TestTensor logits = filled(dtype, {rows, vocabulary}, 1), targets = filled(DType::i32, {rows}, 44);
      TestTensor losses(DType::f32, {rows}), correct(DType::u8, {rows});
      for (std::int64_t n = 0; n < rows; ++n)
        for (const std::int64_t place : {other, std::int64_t{44}}) logits.set(n * vocabulary + place, 3);
      ops_->cross_entropy_forward(losses, correct, logits, targets, {});
      for (std::int64_t n = 0; n < rows; ++n)
        EXPECT_EQ(correct.get(n), other >= 44) << name_of(dtype) << ", row " << n << ", " << other;
    }
}

TEST_F(CrossEntropyTest, NanShowsInTheLoss) {
  for (const std::int64_t place : {0, 3, 36}) {
    TestTensor logits = filled(DType::f32, {1, 37}, 1);
    logits.set(place, NAN);
    ops_->cross_entropy_forward(losses_, {}, logits, target_, {});
    EXPECT_TRUE(std::isnan(losses_.get(0))) << place;
  }
}

TEST_F(CrossEntropyTest, RefusesWrongShapesTypesAndTargets) {
  TestTensor logits(DType::f32, {1, 5}), losses(DType::f64, {1}), mask(DType::u8, {2});
  TestTensor one = filled(DType::f32, {1}, 1), two = filled(DType::f32, {2}, 1),
             wide = filled(DType::f64, {1}, 1);
  EXPECT_THROW(ops_->cross_entropy_forward(losses, {}, logits, target_, {}), std::logic_error);
  EXPECT_THROW(ops_->cross_entropy_forward(losses_, losses_, logits, target_, {}), std::logic_error);
  EXPECT_THROW(ops_->cross_entropy_backward(logits, losses_, target_, mask, one), std::logic_error);
  for (TestTensor* scale : {&two, &wide})
    EXPECT_THROW(ops_->cross_entropy_backward(logits, losses_, target_, {}, *scale), std::logic_error);
  target_.set(0, 5);
  EXPECT_THROW(ops_->cross_entropy_backward(logits, losses_, target_, {}, one), std::logic_error);
}

}  // namespace
}  // namespace flasheva
