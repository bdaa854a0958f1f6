#include "src/io/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "src/core/error.h"
#include "src/core/file.h"
#include "src/io/embedded_files.h"
#include "tests/io/model_configs.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
namespace fs = std::filesystem;

// --- tensors -------------------------------------------------------------------------------------------

std::vector<std::string> described(const std::vector<TensorSpec>& specs, const std::string& part) {
  std::vector<std::string> out;
  for (const TensorSpec& spec : specs)
    if (spec.name.find(part) != std::string::npos)
      out.push_back(spec.name.substr(spec.name.find(part) + part.size()) + json(spec.shape).dump());
  return out;
}

TEST(TensorSpecs, AreThoseOfGptNeoXInItsOrder) {
  json content = pythia();
  content["num_hidden_layers"] = 1;
  EXPECT_THAT(
      described(tensor_specs(read(content)), ""),
      ElementsAre("gpt_neox.embed_in.weight[50304,512]", "gpt_neox.layers.0.input_layernorm.weight[512]",
                  "gpt_neox.layers.0.input_layernorm.bias[512]",
                  "gpt_neox.layers.0.post_attention_layernorm.weight[512]",
                  "gpt_neox.layers.0.post_attention_layernorm.bias[512]",
                  "gpt_neox.layers.0.attention.query_key_value.weight[1536,512]",
                  "gpt_neox.layers.0.attention.query_key_value.bias[1536]",
                  "gpt_neox.layers.0.attention.dense.weight[512,512]",
                  "gpt_neox.layers.0.attention.dense.bias[512]",
                  "gpt_neox.layers.0.mlp.dense_h_to_4h.weight[2048,512]",
                  "gpt_neox.layers.0.mlp.dense_h_to_4h.bias[2048]",
                  "gpt_neox.layers.0.mlp.dense_4h_to_h.weight[512,2048]",
                  "gpt_neox.layers.0.mlp.dense_4h_to_h.bias[512]", "gpt_neox.final_layer_norm.weight[512]",
                  "gpt_neox.final_layer_norm.bias[512]", "embed_out.weight[50304,512]"));
}

std::vector<std::string> eva_tensors(Adapter adapter, Proposal proposal, ChunkBias bias) {
  ModelConfig config = read(flasheva());  // layer 1 is sliding: it has none
  config.eva.adapter = adapter;
  config.eva.proposal = proposal;
  config.eva.chunk_bias = bias;
  EXPECT_TRUE(described(tensor_specs(config), "layers.1.attention.eva.").empty());
  return described(tensor_specs(config), "layers.0.attention.eva.");
}

TEST(TensorSpecs, OfEveryEvaVariant) {
  EXPECT_THAT(eva_tensors(Adapter::none, Proposal::qk, ChunkBias::log_chunk), ElementsAre());
  EXPECT_THAT(eva_tensors(Adapter::linear, Proposal::zero, ChunkBias::none),
              ElementsAre("key_proj.weight[64,64]", "key_proj.bias[64]"));
  EXPECT_THAT(eva_tensors(Adapter::linear, Proposal::qk, ChunkBias::learned),
              ElementsAre("key_proj.weight[64,64]", "key_proj.bias[64]", "query_proj.weight[64,64]",
                          "query_proj.bias[64]", "chunk_bias[8]"));
  EXPECT_THAT(
      eva_tensors(Adapter::linear_layernorm, Proposal::k, ChunkBias::none),
      ElementsAre("key_proj.weight[64,64]", "key_proj.bias[64]", "key_norm.weight[64]", "key_norm.bias[64]"));
  EXPECT_THAT(eva_tensors(Adapter::linear_layernorm, Proposal::qk, ChunkBias::none),
              ElementsAre("key_proj.weight[64,64]", "key_proj.bias[64]", "key_norm.weight[64]",
                          "key_norm.bias[64]", "query_proj.weight[64,64]", "query_proj.bias[64]",
                          "query_norm.weight[64]", "query_norm.bias[64]"));
  EXPECT_THAT(eva_tensors(Adapter::learned, Proposal::qk, ChunkBias::learned),
              ElementsAre("mu[8,64]", "phi[8,64]", "chunk_bias[8]"));
}

TEST(TensorSpecs, LegacyBuffersAreKnownAndNoParameterIsOne) {
  for (const char* name : {"attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"})
    EXPECT_TRUE(is_legacy_buffer(std::string("gpt_neox.layers.0.") + name));
  EXPECT_TRUE(is_legacy_buffer("gpt_neox.rotary_emb.inv_freq"));
  for (const TensorSpec& spec : tensor_specs(read(flasheva())))
    EXPECT_FALSE(is_legacy_buffer(spec.name)) << spec.name;
}

// --- folders -------------------------------------------------------------------------------------------

class ModelFolder : public ::testing::Test {
 protected:
  void write(const std::string& name, const json& config, const std::string& tokenizer_from = "") {
    static const std::vector<float> values = {1, 2};
    write_model_folder(folder_ / name, read(config),
                       {{"w", {StoredType::F32, {2}, std::as_bytes(std::span(values))}}},
                       tokenizer_from.empty() ? "" : folder_ / tokenizer_from, {{"base_model", "pythia"}});
  }
  void put(const fs::path& file, const std::string& text) {
    fs::create_directories((folder_ / file).parent_path());
    std::ofstream(folder_ / file) << text;
  }
  std::vector<std::string> list(const fs::path& name = "") const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_ / name)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  TemporaryFolder folder_;
};

TEST_F(ModelFolder, OfPlainGptNeoX) {
  write("new/model/", pythia());
  EXPECT_THAT(list("new"), ElementsAre("model"));
  EXPECT_THAT(list("new/model"), ElementsAre("README.md", "config.json", "generation_config.json",
                                             "model.safetensors", "training.json"));
  EXPECT_EQ(read_model_config(folder_ / "new/model").hidden_size, 512);
  const SafetensorsReader weights(folder_ / "new/model");
  EXPECT_THAT(weights.at("w").shape, ElementsAre(2));
  EXPECT_EQ(weights.metadata().at("format"), "pt");
  const json generation = json::parse(read_text_file(folder_ / "new/model/generation_config.json"));
  EXPECT_EQ(generation["eos_token_id"], 0);
}

TEST_F(ModelFolder, OfFlashEvaCarriesItsModelingFiles) {
  write("model", flasheva());
  EXPECT_THAT(list("model"), ElementsAre("README.md", "config.json", "configuration_flasheva_gpt_neox.py",
                                         "generation_config.json", "model.safetensors",
                                         "modeling_flasheva_gpt_neox.py", "training.json"));
  ASSERT_EQ(embedded_files().size(), 3u);
  for (const EmbeddedFile& file : embedded_files()) {
    const fs::path written = folder_ / "model" / file.name;
    if (file.name != std::string_view("verify_export.py")) {
      EXPECT_EQ(read_text_file(written), file.content);
    }
    EXPECT_EQ(read_text_file(fs::path(FLASHEVA_FIXTURES) / "../../src/io/huggingface" / file.name),
              file.content);
  }
}

TEST_F(ModelFolder, TakesTheTokenizerOfAnotherFolder) {
  put("from/tokenizer.json", "{\"a\": 1}");
  put("from/merges.txt", "a b");
  put("from/notes.txt", "not a tokenizer file");
  write("model", pythia(), "from");
  EXPECT_THAT(list("model"), ElementsAre("README.md", "config.json", "generation_config.json", "merges.txt",
                                         "model.safetensors", "tokenizer.json", "training.json"));
  EXPECT_EQ(read_text_file(folder_ / "model/tokenizer.json"), "{\"a\": 1}");
}

TEST_F(ModelFolder, ReplacesAModelFolderEvenWithItsOwnTokenizer) {
  write("model", flasheva());
  put("model/tokenizer.json", "{}");
  fs::create_directories(folder_ / "model.flasheva-tmp/left by a crash");
  write("model", pythia(), "model");
  EXPECT_THAT(list(), ElementsAre("model"));
  EXPECT_THAT(list("model"), ElementsAre("README.md", "config.json", "generation_config.json",
                                         "model.safetensors", "tokenizer.json", "training.json"));
}

TEST_F(ModelFolder, FillsAnEmptyFolder) {
  fs::create_directory(folder_ / "model");
  write("model", pythia());
  EXPECT_TRUE(fs::exists(folder_ / "model/config.json"));
}

TEST_F(ModelFolder, RefusesToReplaceAnythingElse) {
  put("thesis/chapter1.txt", "text");
  put("file", "text");
  for (const char* name : {"thesis", "file"})
    EXPECT_THAT(message_of([&] { write(name, pythia()); }, ExitCode::usage),
                HasSubstr(std::string(name) + ": exists and is not a model folder"));
  EXPECT_THAT(list("thesis"), ElementsAre("chapter1.txt"));
  write("download", pythia());
  fs::remove(folder_ / "download/training.json");
  EXPECT_THAT(message_of([&] { write("download", pythia()); }, ExitCode::usage),
              HasSubstr("download: exists and is not a model folder of flasheva's"));
  write("export", pythia());
  put("export/notes.txt", "mine");
  EXPECT_THAT(message_of([&] { write("export", pythia()); }, ExitCode::usage),
              HasSubstr("export: notes.txt in it is not flasheva's and would be lost"));
}

TEST_F(ModelFolder, KeepsTheOldOneWhereWritingFails) {
  write("model", flasheva());
  fs::create_directories(folder_ / "from/tokenizer.json");  // a folder cannot be read as a file
  EXPECT_THAT(message_of([&] { write("model", pythia(), "from"); }),
              HasSubstr("from/tokenizer.json: cannot read"));
  EXPECT_FALSE(read_model_config(folder_ / "model").full_attention_everywhere());
}

TEST_F(ModelFolder, NamesABrokenConfig) {
  EXPECT_THAT(message_of([&] { read_model_config(folder_.path()); }), HasSubstr("not a model folder"));
  for (const char* text : {"", "{", "{\"vocab_size\": \xff}"}) {
    put("config.json", text);
    EXPECT_THAT(message_of([&] { read_model_config(folder_.path()); }),
                HasSubstr("config.json: not valid JSON"))
        << text;
  }
}

}  // namespace
}  // namespace flasheva
