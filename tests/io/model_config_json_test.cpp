#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "src/core/error.h"
#include "tests/io/model_configs.h"
#include "tests/support/expect_error.h"

namespace flasheva {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

json with(json config, const json& changes) {
  config.update(changes);  // null stays null: an absent value
  return config;
}

json without(json config, const char* key) {
  config.erase(key);
  return config;
}

std::string error_of(const json& config, bool training = false) {
  return message_of([&] { read(config, training); });
}

// --- config.json of GPT-NeoX ---------------------------------------------------------------------------

TEST(ModelConfigJson, ReadsWhatTransformers4Writes) {
  const ModelConfig config = read(pythia());
  EXPECT_EQ(config.vocab_size, 50304);
  EXPECT_EQ(config.hidden_size, 512);
  EXPECT_EQ(config.num_hidden_layers, 2);
  EXPECT_EQ(config.num_attention_heads, 8);
  EXPECT_EQ(config.intermediate_size, 2048);
  EXPECT_EQ(config.max_position_embeddings, 2048);
  EXPECT_EQ(config.rotary_pct, 0.25);
  EXPECT_EQ(config.rotary_emb_base, 10000);
  EXPECT_EQ(config.layer_norm_eps, 1e-5);
  EXPECT_EQ(config.initializer_range, 0.02);
  EXPECT_TRUE(config.use_parallel_residual);
  EXPECT_EQ(config.bos_token_id, 0);
  EXPECT_EQ(config.eos_token_id, 0);
  EXPECT_EQ(config.attention.size(), 2u);
  EXPECT_TRUE(config.full_attention_everywhere());
}

TEST(ModelConfigJson, ReadsWhatTransformers5Writes) {
  json content = pythia();
  for (const char* key :
       {"rotary_pct", "rotary_emb_base", "rope_theta", "partial_rotary_factor", "rope_scaling"})
    content.erase(key);
  content["rope_parameters"] = {
      {"rope_type", "default"}, {"rope_theta", 5000.0}, {"partial_rotary_factor", 0.5}};
  EXPECT_EQ(read(content).rotary_pct, 0.5);
  EXPECT_EQ(read(content).rotary_emb_base, 5000);

  content["rope_parameters"].erase("partial_rotary_factor");
  EXPECT_EQ(read(content).rotary_pct, 0.25);
  EXPECT_EQ(read(with(content, {{"rotary_pct", 0.5}})).rotary_pct, 0.5);
}

TEST(ModelConfigJson, RefusesTwoRotaryFormsThatDisagree) {
  const json rope = {{"rope_type", "default"}, {"rope_theta", 10000}, {"partial_rotary_factor", 0.25}};
  EXPECT_EQ(read(with(pythia(), {{"rope_parameters", rope}})).rotary_pct, 0.25);
  EXPECT_THAT(error_of(with(pythia(), {{"rope_parameters", rope}, {"rotary_pct", 0.5}})),
              HasSubstr("contradict rotary_pct 0.5"));
  EXPECT_THAT(error_of(with(pythia(), {{"rope_parameters", rope}, {"rotary_emb_base", 5000}})),
              HasSubstr("rotary_emb_base 5000"));
}

TEST(ModelConfigJson, TakesTheFirstOfSeveralTokenIdsAndNoneForNull) {
  EXPECT_EQ(read(with(pythia(), {{"eos_token_id", {7, 8}}})).eos_token_id, 7);
  EXPECT_EQ(read(with(pythia(), {{"eos_token_id", nullptr}})).eos_token_id, std::nullopt);
  EXPECT_EQ(read(without(pythia(), "bos_token_id")).bos_token_id, std::nullopt);
}

TEST(ModelConfigJson, RefusesByNameWhatChangesTheMathematics) {
  EXPECT_EQ(error_of(with(pythia(), {{"hidden_act", "gelu_new"}})),
            "config.json: hidden_act \"gelu_new\" is not supported, only gelu (erf) is");
  EXPECT_THAT(error_of(with(pythia(), {{"tie_word_embeddings", true}})),
              HasSubstr("tie_word_embeddings true is not supported"));
  EXPECT_THAT(error_of(with(pythia(), {{"attention_bias", false}})),
              HasSubstr("attention_bias false is not supported"));
  EXPECT_THAT(error_of(with(pythia(), {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}})),
              HasSubstr("rope_scaling: type \"linear\" is not supported"));
  EXPECT_THAT(error_of(with(pythia(), {{"rope_scaling", {{"rope_type", "yarn"}}}})),
              HasSubstr("rope_scaling: rope_type \"yarn\""));
  EXPECT_THAT(error_of(with(pythia(), {{"rope_parameters", {{"rope_type", "dynamic"}}}})),
              HasSubstr("rope_parameters: rope_type \"dynamic\""));
  EXPECT_THAT(error_of(with(pythia(), {{"model_type", "llama"}})),
              HasSubstr("model_type \"llama\" is not supported"));
  EXPECT_THAT(error_of(with(pythia(), {{"attention_layers", {"eva", "eva"}}})),
              HasSubstr("attention_layers needs model_type flasheva_gpt_neox"));
}

TEST(ModelConfigJson, RefusesDropoutInTrainingAlone) {
  for (const char* key : {"attention_dropout", "hidden_dropout"}) {
    const json content = with(pythia(), {{key, 0.1}});
    EXPECT_EQ(read(content).vocab_size, 50304);
    EXPECT_THAT(error_of(content, true), HasSubstr(std::string(key) + " 0.1 is not supported in training"));
  }
  EXPECT_EQ(read(pythia(), true).vocab_size, 50304);
}

TEST(ModelConfigJson, NamesEveryRequiredKeyThatIsMissing) {
  for (const char* key : {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                          "intermediate_size", "model_type"}) {
    EXPECT_EQ(error_of(without(pythia(), key)),
              std::string("config.json: required key ") + key + " is missing");
    EXPECT_EQ(error_of(with(pythia(), {{key, nullptr}})),
              std::string("config.json: required key ") + key + " is missing");
  }
  EXPECT_EQ(error_of(without(flasheva(), "attention_layers")),
            "config.json: required key attention_layers is missing");
}

TEST(ModelConfigJson, NamesTheKeyOfAWrongType) {
  EXPECT_EQ(error_of(with(pythia(), {{"hidden_size", "512"}})),
            "config.json: hidden_size must be an integer, found string");
  EXPECT_EQ(error_of(with(pythia(), {{"hidden_size", 512.5}})),
            "config.json: hidden_size must be an integer, found number");
  EXPECT_THAT(error_of(with(pythia(), {{"hidden_size", 1ull << 63}})),
              HasSubstr("hidden_size is 9223372036854775808, too large"));
  EXPECT_THAT(error_of(with(pythia(), {{"rotary_pct", "x"}})),
              HasSubstr("rotary_pct must be a number, found string"));
  EXPECT_THAT(error_of(with(pythia(), {{"use_parallel_residual", 1}})),
              HasSubstr("use_parallel_residual must be true or false"));
  EXPECT_THAT(error_of(with(pythia(), {{"hidden_act", 1}})), HasSubstr("hidden_act must be text"));
  EXPECT_THAT(error_of(with(pythia(), {{"model_type", 1}})), HasSubstr("model_type \"\" is not supported"));
  EXPECT_THAT(error_of(with(pythia(), {{"eos_token_id", "x"}})),
              HasSubstr("eos_token_id must be an integer"));
  EXPECT_THAT(error_of(with(pythia(), {{"rope_parameters", 1}})),
              HasSubstr("rope_parameters: must be an object, found number"));
  EXPECT_THAT(error_of(json::array()), HasSubstr("config.json: must be an object, found array"));
}

TEST(ModelConfigJson, NamesAnImpossibleValue) {
  EXPECT_THAT(error_of(with(pythia(), {{"num_attention_heads", 7}})),
              HasSubstr("hidden_size 512 is not a multiple of num_attention_heads 7"));
  EXPECT_THAT(error_of(with(pythia(), {{"num_hidden_layers", 1ll << 60}})), HasSubstr("num_hidden_layers"));
  EXPECT_THAT(error_of(with(pythia(), {{"num_hidden_layers", -1}})), HasSubstr("num_hidden_layers"));
}

// --- config.json of FlashEVA ---------------------------------------------------------------------------

TEST(ModelConfigJson, ReadsFlashEva) {
  json content = flasheva();
  content["num_hidden_layers"] = 4;
  content["attention_layers"] = {"eva", "full", "sliding", "eva"};
  content["eva"] = {{"window", 128},
                    {"chunk", 8},
                    {"window_kind", "sliding"},
                    {"chunk_visibility", "all_past"},
                    {"adapter", "learned"},
                    {"proposal", "zero"},
                    {"chunk_bias", "log_chunk"},
                    {"noise_clip", 1.5}};
  content["eva_layers"] = {{"2", {{"window", 64}}}, {"3", {{"window", 32}, {"chunk", 4}}}};
  const ModelConfig config = read(content);
  EXPECT_THAT(
      config.attention,
      ElementsAre(LayerAttention{AttentionKind::eva, 128, 8}, LayerAttention{AttentionKind::full, 128, 8},
                  LayerAttention{AttentionKind::sliding, 64, 8}, LayerAttention{AttentionKind::eva, 32, 4}));
  EXPECT_EQ(config.eva, (EvaConfig{WindowKind::sliding, ChunkVisibility::all_past, Adapter::learned,
                                   Proposal::zero, ChunkBias::log_chunk, 1.5f}));
  EXPECT_EQ(config.shared_geometry.window, 128);
}

TEST(ModelConfigJson, NamesTheFaultOfAFlashEvaKey) {
  const auto eva = [](const json& changes) {
    return error_of(with(flasheva(), {{"eva", with({{"window", 128}, {"chunk", 8}}, changes)}}));
  };
  EXPECT_EQ(eva({{"window_kind", "slidng"}}),
            "config.json: eva: window_kind: unknown value \"slidng\", did you mean sliding?; known are "
            "block, sliding");
  EXPECT_THAT(eva({{"adapter", "cubic_spline_of_order_three"}}),
              HasSubstr("\"; known are none, linear, linear_layernorm, learned"));
  EXPECT_THAT(eva({{"proposal", 3}}), HasSubstr("eva: proposal: must be one of qk, k, zero, found number"));
  EXPECT_THAT(eva({{"windw", 3}}),
              HasSubstr("eva: unknown key \"windw\", did you mean window?; known are window, chunk,"));
  EXPECT_THAT(eva({{"chunk", 8.0}}), HasSubstr("eva: chunk must be an integer"));
  EXPECT_THAT(eva({{"noise_clip", "2"}}), HasSubstr("eva: noise_clip must be a number"));
  EXPECT_THAT(eva({{"chunk", 7}}), HasSubstr("window 128 is not a multiple of chunk 7"));
  EXPECT_THAT(error_of(with(flasheva(), {{"eva", 1}})), HasSubstr("eva: must be an object"));

  const auto layers = [](const json& value) {
    return error_of(with(flasheva(), {{"attention_layers", value}}));
  };
  EXPECT_EQ(layers({"eva", "evo"}),
            "config.json: attention_layers: layer 1: unknown value \"evo\", did you mean eva?; known are "
            "full, sliding, eva");
  EXPECT_THAT(layers({"eva"}),
              HasSubstr("attention_layers must be a list of num_hidden_layers 2 names, found 1"));
  EXPECT_THAT(layers("eva"), HasSubstr("found string"));

  const auto overrides = [](const json& value) {
    return error_of(with(flasheva(), {{"eva_layers", value}}));
  };
  for (const char* key : {"2", "-1", "01", "x", "", "99999999999999999999"})
    EXPECT_THAT(overrides({{key, {{"window", 64}}}}),
                HasSubstr(std::string("eva_layers: unknown layer \"") + key + "\"; layers are 0 to 1"));
  EXPECT_THAT(
      overrides({{"0", {{"windows", 64}}}}),
      HasSubstr("eva_layers: 0: unknown key \"windows\", did you mean window?; known are window, chunk"));
  EXPECT_THAT(overrides({{"0", 64}}), HasSubstr("eva_layers: 0: must be an object"));
  EXPECT_THAT(overrides({{"0", {{"window", 60}}}}),
              HasSubstr("layer 0: window 60 is not a multiple of chunk 8"));
}

TEST(ModelConfigJson, WrittenIsReadBackTheSame) {
  ModelConfig config = read(flasheva());
  config.rotary_pct = 0.5;
  config.rotary_emb_base = 5000;
  config.use_parallel_residual = false;
  config.bos_token_id.reset();
  config.attention[0].chunk = 4;
  config.attention[1].window = 100;
  config.eva = {WindowKind::sliding, ChunkVisibility::all_past, Adapter::linear_layernorm,
                Proposal::k,         ChunkBias::learned,        0.5f};
  const json content = model_config_to_json(config, "bfloat16");
  EXPECT_EQ(content["eva_layers"], (json{{"0", {{"chunk", 4}}}, {"1", {{"window", 100}}}}));
  const ModelConfig back = read(content);
  EXPECT_EQ(model_config_to_json(back, "bfloat16"), content);
  EXPECT_EQ(back.attention, config.attention);
  EXPECT_EQ(back.eva, config.eva);
  EXPECT_EQ(back.rotary_pct, 0.5);
  EXPECT_EQ(back.rotary_emb_base, 5000);
  EXPECT_FALSE(back.use_parallel_residual);
  EXPECT_EQ(back.bos_token_id, std::nullopt);
  EXPECT_EQ(back.eos_token_id, 0);
}

TEST(ModelConfigJson, FullAttentionIsPlainGptNeoX) {
  const json content = model_config_to_json(read(pythia()), "float32");
  EXPECT_EQ(content["model_type"], "gpt_neox");
  EXPECT_EQ(content["architectures"], json({"GPTNeoXForCausalLM"}));
  EXPECT_EQ(content["torch_dtype"], "float32");
  for (const char* key : {"eva", "eva_layers", "attention_layers", "auto_map"})
    EXPECT_FALSE(content.contains(key)) << key;
  EXPECT_EQ(model_config_to_json(read(flasheva()), "float32")["auto_map"]["AutoModelForCausalLM"],
            "modeling_flasheva_gpt_neox.FlashEvaGPTNeoXForCausalLM");
}

}  // namespace
}  // namespace flasheva
