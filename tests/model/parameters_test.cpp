#include "src/model/parameters.h"

#include <gtest/gtest.h>

#include "src/io/model_folder.h"
#include "tests/support/fixtures.h"

namespace flasheva {
namespace {

TEST(Selectors, NameTensorsAsTheConfigSays) {
  EXPECT_TRUE(selects("attention", "gpt_neox.layers.3.attention.dense.weight"));
  EXPECT_TRUE(selects("attention", "gpt_neox.layers.3.attention.eva.key_proj.bias"));
  EXPECT_FALSE(selects("attention", "gpt_neox.layers.3.post_attention_layernorm.weight"));
  EXPECT_FALSE(selects("attention", "gpt_neox.layers.3.mlp.dense_h_to_4h.weight"));
  EXPECT_TRUE(selects("all", "embed_out.weight"));
  EXPECT_TRUE(selects("gpt_neox.layers.?.mlp.*", "gpt_neox.layers.3.mlp.dense_h_to_4h.weight"));
  EXPECT_FALSE(selects("gpt_neox.layers.?.mlp.*", "gpt_neox.layers.13.mlp.dense_h_to_4h.weight"));
}

TEST(Parameters, FrozenOnesTakeNoTrainingMemory) {
  const ModelConfig config = read_model_config(fixture("models/eva-block"));
  ParameterTable parameters(config);
  MemoryPlan all, some;
  EXPECT_EQ(parameters.select({"all"}), "");
  parameters.plan_gradients(all);
  EXPECT_EQ(parameters.trained_count(), parameters.count());
  EXPECT_EQ(parameters.select({"attention"}), "");
  parameters.plan_gradients(some);
  EXPECT_LT(parameters.trained_count(), parameters.count());
  EXPECT_LT(some.bytes(), all.bytes());
  EXPECT_EQ(parameters.select({"attention", "no.such.tensor"}), "no.such.tensor");
}

}  // namespace
}  // namespace flasheva
