#include "src/model/initialize.h"

#include <gtest/gtest.h>

#include <cmath>

#include "src/config/config.h"
#include "src/io/model_folder.h"
#include "tests/support/device_tensors.h"
#include "tests/support/fixtures.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

// A parameter table with bound float32 masters.
struct Masters {
  explicit Masters(const ModelConfig& config) : parameters(config), memory(planned(), *ops) {
    memory.bind(plan);
  }
  std::size_t planned() {
    parameters.plan_masters(plan, DType::f32);
    return plan.bytes();
  }
  TestTensor values_of(const std::string& name) { return copy_of(*ops, parameters.at(name).master); }

  std::unique_ptr<Ops> ops = make_device_ops();
  MemoryPlan plan;
  ParameterTable parameters;
  Buffer memory;
};

ModelConfig swapped(const ModelConfig& before, ChunkBias bias, Adapter adapter) {
  AttentionSettings settings;
  settings.window = 8;
  settings.chunk = 4;
  settings.eva.chunk_bias = bias;
  settings.eva.adapter = adapter;
  ModelConfig after = before;
  apply_attention(after, settings, "test");
  return after;
}

TEST(Initialize, FromScratchFollowsTheRules) {
  const ModelConfig config = read_model_config(fixture("models/full"));
  Masters masters(config);
  initialize_from_scratch(masters.parameters, config, *masters.ops, 7);
  const TestTensor weight = masters.values_of("gpt_neox.embed_in.weight");
  double squares = 0;
  for (std::int64_t i = 0; i < weight.size(); ++i) squares += std::pow(weight.get(i), 2);
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(weight.size())), config.initializer_range, 0.002);
  EXPECT_EQ(masters.values_of("gpt_neox.layers.0.input_layernorm.weight").get(0), 1);
  EXPECT_EQ(masters.values_of("gpt_neox.layers.0.attention.dense.bias").get(0), 0);
  // Two tensors of one shape must not hold the same numbers.
  EXPECT_NE(weight.get(0), masters.values_of("embed_out.weight").get(0));
}

TEST(Initialize, SwapStartsEvaTensorsAsTheIdentity) {
  const ModelConfig before = read_model_config(fixture("models/full"));
  const ModelConfig after = swapped(before, ChunkBias::learned, Adapter::linear);
  Masters masters(after);
  const SwapReport report =
      load_parameters(masters.parameters, after, before, fixture("models/full"), *masters.ops);
  EXPECT_EQ(report.started.size(), 5 * after.attention.size());
  EXPECT_TRUE(report.dropped.empty());
  const std::string eva = "gpt_neox.layers.0.attention.eva.";
  const TestTensor weight = masters.values_of(eva + "key_proj.weight");
  const std::int64_t d = masters.parameters.at(eva + "key_proj.weight").shape[0];
  for (std::int64_t i = 0; i < d * d; ++i) EXPECT_EQ(weight.get(i), i / d == i % d ? 1.0 : 0.0);
  EXPECT_FLOAT_EQ(static_cast<float>(masters.values_of(eva + "chunk_bias").get(0)), std::log(4.0f));
}

TEST(Initialize, SwapBackDropsEvaTensors) {
  const ModelConfig before = read_model_config(fixture("models/eva-block"));
  ModelConfig after = before;
  AttentionSettings settings;
  settings.default_kind = AttentionKind::full;
  apply_attention(after, settings, "test");
  Masters masters(after);
  const SwapReport report =
      load_parameters(masters.parameters, after, before, fixture("models/eva-block"), *masters.ops);
  EXPECT_TRUE(report.started.empty());
  EXPECT_FALSE(report.dropped.empty());
}

TEST(Initialize, MissingEvaTensorsOfAnEvaLayerAreAnError) {
  const ModelConfig before =
      read_model_config(fixture("models/eva-block-all-past-none"));  // adapter none: no tensors
  const ModelConfig after = swapped(before, ChunkBias::none, Adapter::linear);
  Masters masters(after);
  try {
    load_parameters(masters.parameters, after, before, fixture("models/eva-block-all-past-none"),
                    *masters.ops);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::data);
    EXPECT_NE(std::string(error.what()).find("key_proj.weight"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace flasheva
