#include <gtest/gtest.h>

#include <cmath>

#include "tests/config/example.h"

namespace flasheva {
namespace {

ModelConfig four_layers() {
  ModelConfig model;
  model.vocab_size = 256;
  model.hidden_size = 64;
  model.num_hidden_layers = 4;
  model.num_attention_heads = 4;
  model.intermediate_size = 256;
  model.attention.resize(4);
  return model;
}

std::string validation_error(const ModelConfig& model) {
  try {
    validate(model, "config.json", ExitCode::data);
  } catch (const Error& error) {
    return error.code() == ExitCode::data ? error.what() : "another exit code";
  }
  return "";
}

TEST(Attention, IsAppliedToEveryLayer) {
  const AttentionSettings settings = parse_attention_settings(
      "{default: eva, window: 64, chunk: 8, adapter: none, layers: {1: full, 3: {window: 32}}}", "flags");
  ModelConfig model = four_layers();
  model.attention[2] = {AttentionKind::sliding, 10, 1};  // what the folder said does not matter
  apply_attention(model, settings, "run.yaml");
  const std::vector<LayerAttention> expected = {{AttentionKind::eva, 64, 8},
                                                {AttentionKind::full, 64, 8},
                                                {AttentionKind::eva, 64, 8},
                                                {AttentionKind::eva, 32, 8}};
  EXPECT_EQ(model.attention, expected);
  EXPECT_EQ(model.shared_geometry.window, 64);
  EXPECT_EQ(model.shared_geometry.chunk, 8);
  EXPECT_EQ(model.eva.adapter, Adapter::none);
  EXPECT_EQ(validation_error(model), "");
}

TEST(Attention, LayerBeyondTheModelIsNamed) {
  AttentionSettings settings;
  settings.layers[4] = {};
  ModelConfig model = four_layers();
  try {
    apply_attention(model, settings, "run.yaml");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_STREQ(error.what(), "run.yaml: model.attention.layers.4: the model has 4 layers, numbered from 0");
  }
}

TEST(Attention, SlidingWindowNeedsNoMultipleOfTheChunk) {
  EXPECT_EQ(parse_attention_settings("{default: sliding, window: 100}", "flags").window, 100);
  EXPECT_EQ(parse_attention_settings("{default: full, window: 100}", "flags").window, 100);
  EXPECT_THROW(parse_attention_settings("{default: eva, window: 100}", "flags"), Error);
  EXPECT_THROW(parse_attention_settings("{default: sliding, window: 100, layers: {1: eva}}", "flags"), Error);
}

TEST(ModelConfig, ImpossibleValuesAreNamed) {
  const auto error_with = [](auto change) {
    ModelConfig model = four_layers();
    change(model);
    return validation_error(model);
  };
  EXPECT_EQ(validation_error(four_layers()), "");
  EXPECT_EQ(error_with([](ModelConfig& m) { m.hidden_size = 66; }),
            "config.json: hidden_size 66 is not a multiple of num_attention_heads 4");
  EXPECT_EQ(error_with([](ModelConfig& m) { m.num_attention_heads = 0; }),
            "config.json: num_attention_heads is 0; it must be an integer from 1 to 1048576");
  EXPECT_EQ(error_with([](ModelConfig& m) { m.vocab_size = std::int64_t{1} << 31; }),
            "config.json: vocab_size is 2147483648; it must be an integer from 1 to 2147483647");
  EXPECT_EQ(error_with([](ModelConfig& m) { m.rotary_pct = 0.2; }),
            "config.json: rotary_pct 0.2 turns 3 of a head's 16 dimensions; the number must be even");
  EXPECT_EQ(error_with([](ModelConfig& m) { m.rotary_pct = 1.5; }),
            "config.json: rotary_pct is 1.5; it must be above 0 and at most 1");
  EXPECT_EQ(error_with([](ModelConfig& m) { m.layer_norm_eps = NAN; }),
            "config.json: layer_norm_eps is nan; it must be above 0 and finite");
  EXPECT_EQ(error_with([](ModelConfig& m) { m.rotary_emb_base = INFINITY; }),
            "config.json: rotary_emb_base is inf; it must be above 0 and finite");
  EXPECT_EQ(error_with([](ModelConfig& m) { m.eos_token_id = 256; }),
            "config.json: eos_token_id is 256; it must be an integer from 0 to 255");
  EXPECT_EQ(error_with([](ModelConfig& m) { m.attention.pop_back(); }),
            "config.json: attention is given for 3 layers; num_hidden_layers is 4");
  EXPECT_EQ(error_with([](ModelConfig& m) {
              m.attention[2] = {AttentionKind::eva, 100, 16};
            }),
            "config.json: layer 2: window 100 is not a multiple of chunk 16");
  EXPECT_EQ(error_with([](ModelConfig& m) {
              m.attention[2] = {AttentionKind::eva, 100, 0};
            }),
            "config.json: layer 2: window 100 is not a multiple of chunk 0");
  EXPECT_EQ(error_with([](ModelConfig& m) {
              m.attention[1] = {AttentionKind::sliding, 0, 16};
            }),
            "config.json: layer 1: window is 0; it must be an integer from 1 to 2147483647");
  EXPECT_EQ(error_with([](ModelConfig& m) { m.eva.noise_clip = 0; }),
            "config.json: noise_clip is 0; it must be above 0 and finite");
}

}  // namespace
}  // namespace flasheva
