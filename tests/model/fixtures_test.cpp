// Whole models against float64 values of PyTorch autograd: logits, loss and the gradient of every parameter,
// for every attention variant and awkward length in tests/fixtures/models.
#include "tests/support/fixtures.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/test_model.h"

namespace flasheva {
namespace {

// Bounds and their reasons: float64 rounding over a few hundred operations; float32's contract.
struct Precision64 {
  static constexpr DType masters = DType::f64;
  static constexpr double logits = 1e-11, gradients = 1e-10;
};
struct Precision32 {
  static constexpr DType masters = DType::f32;
  static constexpr double logits = 1e-5, gradients = 1e-4;
};

class Fixture {
 public:
  explicit Fixture(const std::string& name)
      : folder(fixture("models") / name), expected(folder / "expected.safetensors") {
    const StoredTensor& stored = expected.at("tokens");
    extent = {stored.shape[0], stored.shape[1]};
    tokens = fixture_tensor(expected, "tokens", DType::i32);
    targets = fixture_tensor(expected, "targets", DType::i32);
  }
  TokenBatch batch() { return {extent, tokens, targets, {}}; }
  double gradient_scale() const { return 1.0 / static_cast<double>(extent.rows()); }

  std::filesystem::path folder;
  SafetensorsReader expected;
  Extent extent;
  TestTensor tokens, targets;
};

// A gradient that is 0 by construction (a key's bias: softmax does not see it) is measured against all
// gradients.
double gradient_error(const TestTensor& gradient, const TestTensor& expected, double norm_of_all) {
  double difference = 0, norm = 0;
  for (std::int64_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(gradient.get(i) - expected.get(i), 2);
    norm += std::pow(expected.get(i), 2);
  }
  const double error = std::sqrt(difference) / std::max(std::sqrt(norm), 1e-3 * norm_of_all);
  return std::isfinite(error) ? error : INFINITY;
}

double norm_of_gradients(const Fixture& fixture, const ParameterTable& parameters) {
  double squares = 0;
  for (const Parameter& parameter : parameters.all()) {
    const TestTensor expected = fixture_tensor(fixture.expected, "grad." + parameter.name, DType::f64);
    squares += dot(expected, expected);
  }
  return std::sqrt(squares);
}

template <class Bounds>
void check_model(const std::string& name) {
  Fixture fixture(name);
  TestModel model(fixture.folder, Bounds::masters, Bounds::masters, fixture.extent);
  const PassContext pass{*model.ops, fixture.extent, {}};

  const DeviceTensor logits(*model.ops, Bounds::masters, {fixture.extent.rows(), model.config.vocab_size});
  const TokenBatch batch = model.on_device(fixture.batch());
  model.network.logits(pass, logits, batch.tokens);
  EXPECT_LE(relative_error(model.values_of(logits), fixture_tensor(fixture.expected, "logits", DType::f64)),
            Bounds::logits);

  const double loss = fixture_tensor(fixture.expected, "loss", DType::f64).get(0);
  const double nats = model.forward_backward(pass, batch, fixture.gradient_scale());
  EXPECT_NEAR(nats * fixture.gradient_scale(), loss, Bounds::logits * std::abs(loss));
  EXPECT_NEAR(model.network.evaluate(pass, batch).nats * fixture.gradient_scale(), loss,
              Bounds::logits * std::abs(loss));

  const double norm = norm_of_gradients(fixture, model.parameters);
  for (const Parameter& parameter : model.parameters.all()) {
    const TestTensor expected = fixture_tensor(fixture.expected, "grad." + parameter.name, DType::f64);
    EXPECT_LE(gradient_error(model.values_of(parameter.gradient), expected, norm), Bounds::gradients)
        << parameter.name;
  }
}

class ModelFixtures : public testing::TestWithParam<std::string> {};

TEST_P(ModelFixtures, Float64) {
  FLASHEVA_NEEDS_FLOAT64();
  check_model<Precision64>(GetParam());
}
TEST_P(ModelFixtures, Float32) { check_model<Precision32>(GetParam()); }

// Low precision is judged in full by the operations' tests; here the whole model must stay near float64.
TEST_P(ModelFixtures, LossInLowPrecisionIsNear) {
  Fixture fixture(GetParam());
  const double loss = fixture_tensor(fixture.expected, "loss", DType::f64).get(0);
  for (const auto& [dtype, bound] :  // bfloat16 keeps 8 bits: 0.4 % an operation; float16 three more
       {std::pair{DType::bf16, 0.02}, {DType::f16, 0.02 / 8}}) {
    TestModel model(fixture.folder, DType::f32, dtype, fixture.extent);
    const double nats = model.forward_backward({*model.ops, fixture.extent, {}},
                                               model.on_device(fixture.batch()), fixture.gradient_scale());
    EXPECT_NEAR(nats * fixture.gradient_scale(), loss, bound * loss) << name_of(dtype);
  }
}

// Whatever is frozen gets no gradient, and what is trained gets the same gradient as when everything is.
TEST_P(ModelFixtures, FrozenTensorsChangeNoOtherGradient) {
  FLASHEVA_NEEDS_FLOAT64();
  for (const char* selector : {"attention", "gpt_neox.layers.1.mlp.*", "embed_out.weight", "*norm*",
                               "*.input_layernorm.*", "*.post_attention_layernorm.*"}) {
    Fixture fixture(GetParam());
    TestModel model(fixture.folder, DType::f64, DType::f64, fixture.extent, {selector});
    model.forward_backward({*model.ops, fixture.extent, {}}, model.on_device(fixture.batch()),
                           fixture.gradient_scale());
    const double norm = norm_of_gradients(fixture, model.parameters);
    for (const Parameter& parameter : model.parameters.all()) {
      EXPECT_EQ(parameter.trained, selects(selector, parameter.name));
      if (!parameter.trained) {
        EXPECT_FALSE(parameter.gradient) << parameter.name;
        continue;
      }
      const TestTensor expected = fixture_tensor(fixture.expected, "grad." + parameter.name, DType::f64);
      EXPECT_LE(gradient_error(model.values_of(parameter.gradient), expected, norm), Precision64::gradients)
          << parameter.name << " with " << selector;
    }
  }
}

// Micro batches of one sequence add up to the whole batch.
TEST_P(ModelFixtures, MicroBatchesAddUp) {
  FLASHEVA_NEEDS_FLOAT64();
  Fixture fixture(GetParam());
  const std::int64_t B = fixture.extent.sequences, T = fixture.extent.tokens;
  TestModel model(fixture.folder, DType::f64, DType::f64, {1, T});
  const TokenBatch all = fixture.batch();
  for (std::int64_t b = 0; b < B; ++b) {
    const TokenBatch one{{1, T}, all.tokens.rows(b * T, T), all.targets.rows(b * T, T), {}};
    model.forward_backward({*model.ops, one.extent, {}}, model.on_device(one), fixture.gradient_scale());
  }
  const double norm = norm_of_gradients(fixture, model.parameters);
  for (const Parameter& parameter : model.parameters.all())
    EXPECT_LE(gradient_error(model.values_of(parameter.gradient),
                             fixture_tensor(fixture.expected, "grad." + parameter.name, DType::f64), norm),
              Precision64::gradients)
        << parameter.name;
}

std::vector<std::string> all_fixtures() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(fixture("models")))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, ModelFixtures, testing::ValuesIn(all_fixtures()), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace flasheva
