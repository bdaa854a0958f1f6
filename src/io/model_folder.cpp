#include "src/io/model_folder.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "src/core/error.h"
#include "src/core/text.h"
#include "src/io/embedded_files.h"
#include "src/io/model_card.h"

namespace flasheva {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

using Specs = std::vector<TensorSpec>;

void add_linear(Specs& specs, const std::string& name, std::int64_t outputs, std::int64_t inputs) {
  specs.push_back({name + ".weight", {outputs, inputs}});
  specs.push_back({name + ".bias", {outputs}});
}

void add_norm(Specs& specs, const std::string& name, std::int64_t size) {
  specs.push_back({name + ".weight", {size}});
  specs.push_back({name + ".bias", {size}});
}

void add_eva(Specs& specs, const std::string& prefix, const ModelConfig& config) {
  const std::int64_t d = config.head_dim(), heads = config.num_attention_heads;
  const EvaConfig& eva = config.eva;
  if (eva.adapter == Adapter::linear || eva.adapter == Adapter::linear_layernorm) {
    for (const char* side : {"key", "query"}) {
      if (side == std::string_view("query") && eva.proposal != Proposal::qk) continue;
      add_linear(specs, prefix + side + "_proj", d, d);
      if (eva.adapter == Adapter::linear_layernorm) add_norm(specs, prefix + side + "_norm", d);
    }
  }
  if (eva.adapter == Adapter::learned) {
    specs.push_back({prefix + "mu", {heads, d}});
    specs.push_back({prefix + "phi", {heads, d}});
  }
  if (eva.chunk_bias == ChunkBias::learned) specs.push_back({prefix + "chunk_bias", {heads}});
}

void add_layer(Specs& specs, const std::string& prefix, const ModelConfig& config,
               const LayerAttention& attention) {
  const std::int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  add_norm(specs, prefix + "input_layernorm", hidden);
  add_norm(specs, prefix + "post_attention_layernorm", hidden);
  add_linear(specs, prefix + "attention.query_key_value", 3 * hidden, hidden);
  add_linear(specs, prefix + "attention.dense", hidden, hidden);
  if (attention.kind == AttentionKind::eva) add_eva(specs, prefix + "attention.eva.", config);
  add_linear(specs, prefix + "mlp.dense_h_to_4h", inner, hidden);
  add_linear(specs, prefix + "mlp.dense_4h_to_h", hidden, inner);
}

// --- writing -------------------------------------------------------------------------------------------

constexpr std::array modeling_files = {"configuration_flasheva_gpt_neox.py", "modeling_flasheva_gpt_neox.py"};
constexpr std::array tokenizer_files = {
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
    "merges.txt",     "added_tokens.json"};
constexpr std::array other_files = {"config.json",       "generation_config.json",
                                    "model.safetensors", "training.json",
                                    "README.md",         "tokens.safetensors"};  // the last: bench step

bool is_written_here(const std::string& name) {
  const auto is_one_of = [&](const auto& names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  return is_one_of(modeling_files) || is_one_of(tokenizer_files) || is_one_of(other_files);
}

[[noreturn]] void fail_writing(const fs::path& path, const std::error_code& error) {
  fail(ExitCode::disk, "{}: cannot write: {}", path.string(), error.message());
}

void remove_folder(const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  if (error) fail_writing(folder, error);
}

void rename_folder(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) fail_writing(to, error);
}

void write_file(const fs::path& path, std::string_view content) {
  FileWriter file(path);
  file.write(content);
  file.close();
}

// As Hugging Face names it: the type of the first tensor, which is the embedding.
std::string torch_dtype_of(const NamedTensors& tensors) {
  switch (tensors.empty() ? StoredType::F32 : tensors.front().second.dtype) {
    case StoredType::F16:
      return "float16";
    case StoredType::BF16:
      return "bfloat16";
    case StoredType::F64:
      return "float64";
    default:
      return "float32";
  }
}

json generation_config(const ModelConfig& config) {
  json out = {{"_from_model_config", true}};
  if (config.bos_token_id) out["bos_token_id"] = *config.bos_token_id;
  if (config.eos_token_id) out["eos_token_id"] = *config.eos_token_id;
  return out;
}

}  // namespace

std::vector<TensorSpec> tensor_specs(const ModelConfig& config) {
  Specs specs;
  specs.push_back({"gpt_neox.embed_in.weight", {config.vocab_size, config.hidden_size}});
  for (std::size_t layer = 0; layer < config.attention.size(); ++layer)
    add_layer(specs, "gpt_neox.layers." + std::to_string(layer) + ".", config, config.attention[layer]);
  add_norm(specs, "gpt_neox.final_layer_norm", config.hidden_size);
  specs.push_back({"embed_out.weight", {config.vocab_size, config.hidden_size}});
  return specs;
}

bool is_legacy_buffer(const std::string& tensor_name) {
  const auto ends_with = [&](std::string_view suffix) { return tensor_name.ends_with(suffix); };
  return ends_with(".attention.bias") || ends_with(".attention.masked_bias") ||
         ends_with(".rotary_emb.inv_freq");
}

void check_model_folder_destination(const fs::path& folder) {
  if (!fs::exists(folder) || (fs::is_directory(folder) && fs::is_empty(folder))) return;
  if (!fs::exists(folder / "config.json") || !fs::exists(folder / "training.json"))
    fail(ExitCode::usage,
         "{}: exists and is not a model folder of flasheva's (it lacks config.json or training.json); choose "
         "another name or remove it",
         folder.string());
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!is_written_here(name))
      fail(ExitCode::usage,
           "{}: {} in it is not flasheva's and would be lost; choose another name or move it away",
           folder.string(), printable(name));
  }
}

void write_model_folder_files(const fs::path& folder, const ModelConfig& config,
                              const std::string& torch_dtype, const fs::path& tokenizer_from) {
  write_file(folder / "config.json", model_config_to_json(config, torch_dtype).dump(2) + "\n");
  write_file(folder / "generation_config.json", generation_config(config).dump(2) + "\n");
  if (!config.full_attention_everywhere())
    for (const char* name : modeling_files) write_file(folder / name, embedded_file(name));
  if (tokenizer_from.empty()) return;
  for (const char* name : tokenizer_files)
    if (fs::exists(tokenizer_from / name)) write_file(folder / name, read_text_file(tokenizer_from / name));
}

void write_model_folder(const fs::path& folder, const ModelConfig& config, const NamedTensors& tensors,
                        const fs::path& tokenizer_from, const json& training) {
  check_model_folder_destination(folder);
  fs::path target = fs::absolute(folder).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // "model/"
  const fs::path temporary = target.string() + ".flasheva-tmp", replaced = target.string() + ".flasheva-old";

  remove_folder(temporary);
  create_folders(temporary);
  try {
    write_safetensors(temporary / "model.safetensors", tensors, {{"format", "pt"}});
    write_model_folder_files(temporary, config, torch_dtype_of(tensors), tokenizer_from);
    write_file(temporary / "training.json", training.dump(1) + "\n");
    write_file(temporary / "README.md",
               model_card(target.filename().string(), config, torch_dtype_of(tensors), training));
    sync_folder(temporary);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }

  remove_folder(replaced);
  if (fs::exists(target)) rename_folder(target, replaced);
  rename_folder(temporary, target);
  sync_folder(target.parent_path());
  remove_folder(replaced);
}

}  // namespace flasheva
