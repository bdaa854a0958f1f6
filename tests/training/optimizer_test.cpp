#include "src/training/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "kernels/timed_ops.h"
#include "tests/support/fixtures.h"
#include "tests/support/test_model.h"

namespace flasheva {
namespace {

// An optimizer with its moments.
struct PlannedOptimizer {
  explicit PlannedOptimizer(TestModel& model, Sharding sharding = Sharding::none,
                            std::vector<Range> buckets = {}) {
    MemoryPlan plan;
    optimizer.plan(plan, model.parameters, sharding, std::move(buckets), 0, 1);
    memory = std::make_unique<Buffer>(plan.bytes(), *model.ops);
    memory->bind(plan);
  }
  Optimizer optimizer;
  std::unique_ptr<Buffer> memory;
};

class OptimizerTest : public testing::Test {
 protected:
  static constexpr double lr = 0.02;

  void SetUp() override {
    config.weight_decay = 0.3;
    config.clip = 0;
    std::mt19937_64 generator(5);
    for (Parameter& parameter : model.parameters.all()) {
      gradients.push_back(TestTensor::random(DType::f32, {parameter.shape.size()}, generator, 0.1));
      write_to(*model.ops, parameter.gradient, gradients.back());
    }
  }

  double norm_of(const std::string& part) const {
    double squares = 0;
    for (std::size_t p = 0; p < gradients.size(); ++p)
      if (model.parameters.all()[p].name.find(part) != std::string::npos)
        squares += dot(gradients[p], gradients[p]);
    return std::sqrt(squares);
  }

  // Three updates with the same gradients, each element against AdamW as PyTorch's documentation writes it,
  // gradients times `scale`.
  void expect_adamw(double scale) {
    std::vector<TestTensor> expected;
    for (const Parameter& parameter : model.parameters.all())
      expected.push_back(model.values_of(parameter.master));
    for (int t = 1; t <= 3; ++t) {
      optimizer.update(*model.ops, *communicator, config, lr, t, norm_of(""), 1, {});
      std::size_t index = 0;
      for (const Parameter& parameter : model.parameters.all()) {
        const TestTensor& gradient = gradients[index];
        TestTensor& weight = expected[index++];
        for (std::int64_t i = 0; i < weight.size(); ++i) {
          const double g = scale * gradient.get(i);
          const double m = g * (1 - std::pow(config.beta1, t)), v = g * g * (1 - std::pow(config.beta2, t));
          const double w = weight.get(i) * (1 - (parameter.shape.rank() >= 2 ? lr * config.weight_decay : 0));
          weight.set(i, w - lr * (m / (1 - std::pow(config.beta1, t))) /
                                (std::sqrt(v / (1 - std::pow(config.beta2, t))) + config.eps));
        }
      }
    }
    std::size_t index = 0;
    for (const Parameter& parameter : model.parameters.all())  // 3 float32 updates: a few roundings of 6e-8
      EXPECT_LE(relative_error(model.values_of(parameter.master), expected[index++]), 1e-6) << parameter.name;
  }

  TestModel model{fixture("models/full"), DType::f32, DType::f32, {1, 8}};
  std::vector<TestTensor> gradients;  // of the parameters, in their order
  PlannedOptimizer planned{model};
  Optimizer& optimizer = planned.optimizer;
  std::unique_ptr<Communicator> communicator = make_single_communicator();
  OptimizerConfig config;
};

TEST_F(OptimizerTest, DecaysWeightsOfTwoDimensionsOnly) { expect_adamw(1); }

TEST_F(OptimizerTest, ClipsByTheGlobalNorm) {
  config.clip = 0.5;
  config.eps = 0.1;  // without it Adam hides the size of the gradients
  ASSERT_GT(norm_of(""), 1);
  expect_adamw(0.5 / (norm_of("") + 1e-6));
}

TEST_F(OptimizerTest, LeavesSmallGradientsAlone) {
  config.clip = 2 * norm_of("");
  config.eps = 0.1;
  expect_adamw(1);
}

TEST_F(OptimizerTest, NormsOfTheWholeAndOfItsParts) {
  const GradientNorms norms = optimizer.norms(*model.ops, *communicator, 1);
  EXPECT_NEAR(norms.global, norm_of(""), 1e-6 * norms.global);
  ASSERT_EQ(norms.by_part.size(), 3 + model.config.attention.size());
  for (const char* part : {"embed_in", "final_layer_norm", "embed_out", "layers.0", "layers.1"})
    EXPECT_NEAR(norms.by_part.at(part), norm_of(std::string(part) + "."), 1e-6 * norms.global) << part;
  EXPECT_EQ(norms.first_non_finite, "");
}

TEST_F(OptimizerTest, NamesTheFirstGradientOfTheBackwardPassThatIsNotFinite) {
  for (const auto& [name, value] : {std::pair("embed_out.weight", std::numeric_limits<double>::infinity()),
                                    std::pair("gpt_neox.layers.1.mlp.dense_h_to_4h.bias", double{NAN})}) {
    const Tensor gradient = model.parameters.at(name).gradient;
    TestTensor values = model.values_of(gradient);
    values.set(1, value);
    write_to(*model.ops, gradient, values);
  }
  EXPECT_EQ(optimizer.norms(*model.ops, *communicator, 1).first_non_finite, "embed_out.weight");
}

// Of gradients times a power of two, to the bit.
TEST_F(OptimizerTest, DividesByTheLossScale) {
  config.clip = 0.5;
  constexpr double loss_scale = 1 << 16;
  TestModel scaled(fixture("models/full"), DType::f32, DType::f32, {1, 8});
  PlannedOptimizer other(scaled);
  std::size_t index = 0;
  for (const Parameter& parameter : scaled.parameters.all()) {
    TestTensor gradient = gradients[index++];
    for (std::int64_t i = 0; i < gradient.size(); ++i) gradient.set(i, loss_scale * gradient.get(i));
    write_to(*scaled.ops, parameter.gradient, gradient);
  }
  const GradientNorms norms = optimizer.norms(*model.ops, *communicator, 1),
                      scaled_norms = other.optimizer.norms(*scaled.ops, *communicator, loss_scale);
  EXPECT_EQ(scaled_norms.global, norms.global);
  EXPECT_EQ(scaled_norms.by_part, norms.by_part);
  optimizer.update(*model.ops, *communicator, config, lr, 1, norms.global, 1, {});
  other.optimizer.update(*scaled.ops, *communicator, config, lr, 1, norms.global, loss_scale, {});
  for (const Parameter& parameter : model.parameters.all())
    EXPECT_EQ(relative_error(scaled.values_of(scaled.parameters.at(parameter.name).master),
                             model.values_of(parameter.master)),
              0)
        << parameter.name;
}

// Each of two buckets leaves in one cast and comes back in another; the border between them cuts a parameter.
// Copies in 16 bits do not all stand side by side.
TEST_F(OptimizerTest, ShardedCastsParametersThatStandSideBySideAtOnce) {
  optimizer.update(*model.ops, *communicator, config, lr, 1, norm_of(""), 1, {});
  for (const DType compute : {DType::f32, DType::bf16}) {
    TestModel sharded(fixture("models/full"), DType::f32, compute, {1, 8});
    for (Parameter& parameter : sharded.parameters.all())
      sharded.ops->copy(parameter.gradient, model.parameters.at(parameter.name).gradient);
    const std::int64_t all = sharded.parameters.gradient_elements(), border = all / 2 - 7;
    PlannedOptimizer other(sharded, Sharding::moments, {{border, all}, {0, border}});
    TimedOps ops(*sharded.ops);
    const DeviceTensor scratch(*sharded.ops, DType::f32, {all - border});
    other.optimizer.update(ops, *communicator, config, lr, 1, norm_of(""), 1, scratch);
    if (compute == DType::f32) {
      EXPECT_EQ(ops.totals().at("cast").calls, 4);
    }
    for (const Parameter& parameter : sharded.parameters.all()) {
      const TestTensor expected = model.values_of(model.parameters.at(parameter.name).master);
      EXPECT_EQ(relative_error(sharded.values_of(parameter.master), expected), 0) << parameter.name;
      EXPECT_EQ(relative_error(sharded.values_of(parameter.weight), expected.converted(compute)), 0)
          << parameter.name;
    }
  }
}

class OptimizerOfAPhase : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, OptimizerOfAPhase, testing::ValuesIn(low_precisions),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(OptimizerOfAPhase, TouchesNoFrozenTensorAndRefreshesCopiesInLowPrecision) {
  TestModel model(fixture("models/full"), DType::f32, GetParam(), {1, 8}, {"attention"});
  std::vector<TestTensor> before;
  for (Parameter& parameter : model.parameters.all()) {
    before.push_back(model.values_of(parameter.master));
    if (!parameter.trained) continue;
    TestTensor ones(DType::f32, parameter.shape);
    for (std::int64_t i = 0; i < ones.size(); ++i) ones.set(i, 1);
    write_to(*model.ops, parameter.gradient, ones);
  }
  PlannedOptimizer planned(model);
  planned.optimizer.update(*model.ops, *make_single_communicator(), {}, 0.02, 1, 1.0, 1, {});
  std::size_t index = 0;
  for (const Parameter& parameter : model.parameters.all()) {
    const TestTensor after = model.values_of(parameter.master), weight = model.values_of(parameter.weight);
    for (std::int64_t i = 0; i < after.size(); ++i) {
      EXPECT_EQ(after.get(i) < before[index].get(i), parameter.trained) << parameter.name;
      EXPECT_EQ(after.get(i) == before[index].get(i), !parameter.trained) << parameter.name;
      EXPECT_EQ(weight.get(i), RoundTo{GetParam()}(after.get(i)));
    }
    ++index;
  }
}

}  // namespace
}  // namespace flasheva
