// Activations that are rebuilt for the backward pass give the loss and the gradients of those that are kept,
// bit for bit: every attention variant, frozen tensors, noise, and micro batches smaller than planned.
#include "src/config/recompute.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "src/config/config.h"
#include "tests/support/fixtures.h"
#include "tests/support/test_model.h"

namespace flasheva {
namespace {

constexpr Recompute settings[] = {Recompute::none, Recompute::attention, Recompute::block};

bool same_bits(TestTensor a, TestTensor b) {
  const Tensor x = a, y = b;
  return x.bytes() == y.bytes() && std::memcmp(x.data, y.data, x.bytes()) == 0;
}

class RecomputedModel : public testing::TestWithParam<std::string> {
 protected:
  RecomputedModel() : folder_(fixture("models") / GetParam()) {
    const SafetensorsReader file(folder_ / "expected.safetensors");
    const StoredTensor& stored = file.at("tokens");
    extent_ = {stored.shape[0], stored.shape[1]};
    tokens_ = fixture_tensor(file, "tokens", DType::i32);
    targets_ = fixture_tensor(file, "targets", DType::i32);
  }

  std::unique_ptr<TestModel> model_with(Recompute recompute, DType compute,
                                        const std::vector<std::string>& train = {"all"}) const {
    const Extent planned{extent_.sequences + 1, extent_.tokens + 3};
    return std::make_unique<TestModel>(folder_, DType::f32, compute, planned, train, recompute);
  }

  // Its summed losses; gradients += .
  double forward_backward(TestModel& model, std::int64_t sequences) {
    const Extent extent{sequences, extent_.tokens};
    const TokenBatch batch{
        extent, tokens_.view().rows(0, extent.rows()), targets_.view().rows(0, extent.rows()), {}};
    return model.forward_backward(pass_of(model, extent), model.on_device(batch), 0.01);
  }
  static PassContext pass_of(TestModel& model, Extent extent) {
    return {*model.ops, extent, {.enabled = true, .clip = 2, .seed = 3, .place = model.noise_place}};
  }

  void expect_the_same_bits(DType compute, const std::vector<std::string>& train) {
    std::map<std::string, TestTensor> kept;
    std::vector<double> losses;
    for (const Recompute setting : settings) {
      SCOPED_TRACE(to_string(setting));
      const auto model = model_with(setting, compute, train);
      for (const std::int64_t sequences : {extent_.sequences, std::int64_t{1}})
        losses.push_back(forward_backward(*model, sequences));
      EXPECT_TRUE(std::equal(losses.end() - 2, losses.end(), losses.begin()));
      for (const Parameter& parameter : model->parameters.all()) {
        if (!parameter.trained) continue;
        const TestTensor gradient = model->values_of(parameter.gradient);
        EXPECT_TRUE(same_bits(gradient, kept.emplace(parameter.name, gradient).first->second))
            << parameter.name;
      }
    }
  }

  std::filesystem::path folder_;
  Extent extent_;
  TestTensor tokens_, targets_;
};

TEST_P(RecomputedModel, GradientsOfEverything) {
  for (const DType compute : {DType::f32, DType::bf16, DType::f16}) expect_the_same_bits(compute, {"all"});
}

TEST_P(RecomputedModel, GradientsBesideFrozenTensors) {
  std::vector<std::string> selectors = {"attention"};
  if (!device_is_simulated())
    selectors.insert(selectors.end(), {"gpt_neox.layers.0.mlp.*", "gpt_neox.layers.1.mlp.dense_h_to_4h.bias",
                                       "gpt_neox.layers.0.attention.dense.weight", "*norm*"});
  for (const std::string& selector : selectors) {
    SCOPED_TRACE(selector);
    expect_the_same_bits(DType::f32, {selector});
  }
}

TEST_P(RecomputedModel, NamesTheLayerThatIsNotFinite) {
  for (const Recompute setting : settings) {
    const auto model = model_with(setting, DType::f32);
    const Parameter& bias = model->parameters.at("gpt_neox.layers.0.mlp.dense_4h_to_h.bias");
    TestTensor values = model->values_of(bias.master);
    const auto expect_first = [&](double value, int expected) {  // with the bias's first element so
      values.set(0, value);
      model->ops->copy(bias.master, values);
      forward_backward(*model, extent_.sequences);
      EXPECT_EQ(model->values_of(model->network.first_not_finite()).get(0), expected) << to_string(setting);
    };
    for (int i = 0; i < 2; ++i) {  // recorded, and then replayed
      expect_first(0, -1);
      expect_first(std::numeric_limits<double>::quiet_NaN(), 1);
    }
  }
}

std::vector<std::string> all_fixtures() {
  if (device_is_simulated()) return {"eva-block", "mixed-geometry"};  // parallel, sequential
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(fixture("models")))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, RecomputedModel, testing::ValuesIn(all_fixtures()), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// Bytes of activations that one layer more takes, in float32.
std::size_t bytes_of_a_layer(ModelConfig config, Recompute recompute) {
  const auto activations = [&](std::int64_t layers) {
    config.num_hidden_layers = layers;
    config.attention.assign(static_cast<std::size_t>(layers),
                            {.kind = AttentionKind::eva, .window = 8, .chunk = 4});
    ParameterTable parameters(config);
    parameters.select({"all"});
    GptNeoX network(config, parameters);
    MemoryPlan plan;
    network.plan(plan, Device::cpu, {2, 32}, DType::f32, true, recompute);
    std::size_t bytes = 0;
    for (const auto& category : plan.categories())
      if (category.name == "activations") bytes += category.bytes;
    return bytes;
  };
  return activations(7) - activations(6);
}

TEST(Recompute, KeepsOfEachLayerWhatItSays) {
  const std::size_t N = 2 * 32, D = 64, I = 128, heads = 2, chunks = 2 * 8;
  ModelConfig config;
  config.vocab_size = 50;
  config.hidden_size = D;
  config.intermediate_size = I;
  config.num_attention_heads = heads;
  const std::size_t statistics = 2 + heads;  // mean, rstd, log_sum_exp
  EXPECT_EQ(bytes_of_a_layer(config, Recompute::block), 4 * N * D);
  EXPECT_EQ(bytes_of_a_layer(config, Recompute::attention), 4 * N * (2 * D + I + statistics));
  EXPECT_EQ(bytes_of_a_layer(config, Recompute::none),
            4 * N * (7 * D + 2 * I + statistics) + 4 * 2 * chunks * D);
  config.use_parallel_residual = false;
  EXPECT_EQ(bytes_of_a_layer(config, Recompute::block), 4 * N * D);
  EXPECT_EQ(bytes_of_a_layer(config, Recompute::attention), 4 * N * (3 * D + I + 2 + statistics));
}

}  // namespace
}  // namespace flasheva
