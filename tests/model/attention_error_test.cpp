#include "src/model/attention_error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/fixtures.h"
#include "tests/support/test_model.h"

namespace flasheva {
namespace {

constexpr Extent planned{3, 20};
constexpr std::int64_t heads = 2, head_dim = 5;

// A layer's tensors, larger than the batch that they hold.
struct Layer {
  Layer(DType dtype, Extent extent, std::mt19937_64& generator) : extent(extent) {
    const std::int64_t size = planned.rows() * heads * head_dim;
    for (TestTensor* tensor : {&q, &k, &v, &core_out}) *tensor = TestTensor::random(dtype, {size}, generator);
    log_sum_exp = TestTensor(accumulation_type(dtype), {planned.rows() * heads});
    exact = TestTensor(dtype, {size});
    saved.q = q, saved.k = k, saved.v = v, saved.core_out = core_out, saved.log_sum_exp = log_sum_exp;
    work.branch1 = exact;
  }

  // Element (sequence, token, head, i) of softmax attention over all past tokens, straight from its
  // definition.
  double exact_attention(std::int64_t b, std::int64_t t, std::int64_t h, std::int64_t i) const {
    const auto at = [&](std::int64_t token, std::int64_t j) {
      return ((b * heads + h) * extent.tokens + token) * head_dim + j;
    };
    double sum = 0, weighted = 0;
    for (std::int64_t m = 0; m <= t; ++m) {
      double product = 0;
      for (std::int64_t j = 0; j < head_dim; ++j) product += q.get(at(t, j)) * k.get(at(m, j));
      const double weight = std::exp(product / std::sqrt(static_cast<double>(head_dim)));
      sum += weight;
      weighted += weight * v.get(at(m, i));
    }
    return weighted / sum;
  }

  // ||core_out - exact||^2 and ||exact||^2.
  std::pair<double, double> squares() const {
    double difference = 0, norm = 0;
    std::int64_t at = 0;
    for (std::int64_t b = 0; b < extent.sequences; ++b)
      for (std::int64_t t = 0; t < extent.tokens; ++t)
        for (std::int64_t h = 0; h < heads; ++h)
          for (std::int64_t i = 0; i < head_dim; ++i) {
            const double expected = exact_attention(b, t, h, i);
            difference += std::pow(core_out.get(at++) - expected, 2);
            norm += expected * expected;
          }
    return {difference, norm};
  }

  Extent extent;
  TestTensor q, k, v, core_out, log_sum_exp, exact;
  BlockActivations saved;
  Workspace work;
};

ModelConfig config_of(const std::vector<AttentionKind>& kinds) {
  ModelConfig config;
  config.hidden_size = heads * head_dim;
  config.num_attention_heads = heads;
  for (const AttentionKind kind : kinds) config.attention.push_back({.kind = kind, .window = 8, .chunk = 4});
  return config;
}

// Bounds: rounding of float64 sums; float32's contract for an operation.
class AttentionError : public testing::TestWithParam<std::pair<DType, double>> {};

TEST_P(AttentionError, IsTheDistanceFromExactSoftmaxAttentionInFloat64) {
  const auto [dtype, bound] = GetParam();
  if (dtype == DType::f64) FLASHEVA_NEEDS_FLOAT64();
  std::mt19937_64 generator(11);
  const auto ops = make_test_ops();
  const ModelConfig config = config_of({AttentionKind::full, AttentionKind::sliding, AttentionKind::eva});
  AttentionErrors errors(config);
  std::vector<double> difference(3), norm(3);
  for (const Extent extent : {planned, Extent{1, 7}})
    for (std::size_t layer = 0; layer < 3; ++layer) {
      Layer tensors(dtype, extent, generator);
      errors.add({*ops, extent, {}}, layer, tensors.saved, tensors.work);
      const auto [d, n] = tensors.squares();
      difference[layer] += d;
      norm[layer] += n;
    }
  const std::vector<double> relative = errors.relative();
  ASSERT_EQ(relative.size(), 3u);
  EXPECT_TRUE(std::isnan(relative[0]));
  for (const std::size_t layer : {1, 2}) {
    const double expected = std::sqrt(difference[layer] / norm[layer]);
    EXPECT_GT(expected, 0.5);
    EXPECT_NEAR(relative[layer], expected, bound * expected) << layer;
  }
}
INSTANTIATE_TEST_SUITE_P(Types, AttentionError,
                         testing::Values(std::pair(DType::f64, 1e-13), std::pair(DType::f32, 1e-5)),
                         [](const auto& test) { return std::string(name_of(test.param.first)); });

std::vector<double> errors_of(const std::string& name, std::int64_t sequences_at_once) {
  TestModel model(fixture("models") / name, DType::f64, DType::f64, {3, 64});
  const SafetensorsReader expected(fixture("models") / name / "expected.safetensors");
  const Extent extent{expected.at("tokens").shape[0], expected.at("tokens").shape[1]};
  TestTensor tokens = fixture_tensor(expected, "tokens", DType::i32),
             targets = fixture_tensor(expected, "targets", DType::i32);
  AttentionErrors errors(model.config);
  for (std::int64_t first = 0; first < extent.sequences; first += sequences_at_once) {
    const std::int64_t row = first * extent.tokens, rows = sequences_at_once * extent.tokens;
    const TokenBatch batch{{sequences_at_once, extent.tokens},
                           tokens.view().reshaped({extent.rows()}).rows(row, rows),
                           targets.view().reshaped({extent.rows()}).rows(row, rows),
                           {}};
    const PassContext pass{*model.ops, batch.extent, {}};
    const LossSums with = model.network.evaluate(pass, model.on_device(batch), &errors);
    const LossSums without = model.network.evaluate(pass, model.on_device(batch));
    EXPECT_EQ(with.nats, without.nats);
  }
  return errors.relative();
}

TEST(AttentionErrorsOfAModel, AreThereForEveryLayerThatIsNotFull) {
  FLASHEVA_NEEDS_FLOAT64();
  const std::vector<double> errors = errors_of("mixed-geometry", 1);
  ASSERT_EQ(errors.size(), 4u);
  const ModelConfig config = read_model_config(fixture("models/mixed-geometry"));
  for (std::size_t layer = 0; layer < errors.size(); ++layer)
    if (config.attention[layer].kind == AttentionKind::full)
      EXPECT_TRUE(std::isnan(errors[layer])) << layer;
    else
      EXPECT_GT(errors[layer], 1e-3) << layer;
}

TEST(AttentionErrorsOfAModel, DoNotDependOnTheBatch) {
  FLASHEVA_NEEDS_FLOAT64();
  const std::vector<double> together = errors_of("eva-block", 3), apart = errors_of("eva-block", 1);
  for (std::size_t layer = 0; layer < together.size(); ++layer)
    EXPECT_NEAR(together[layer], apart[layer], 1e-12 * apart[layer]) << layer;
}

// Below one chunk the window holds every token: the attention is exact.
TEST(AttentionErrorsOfAModel, AreZeroWhereTheWindowHoldsEveryToken) {
  FLASHEVA_NEEDS_FLOAT64();
  for (const double error : errors_of("eva-below-one-chunk", 1)) EXPECT_LE(error, 1e-14);
}

}  // namespace
}  // namespace flasheva
