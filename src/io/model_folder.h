// Hugging Face model folders: config.json, model.safetensors (or shards with an index),
// generation_config.json, tokenizer files. model_type gpt_neox where every layer is full attention, else
// flasheva_gpt_neox.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "src/config/model_config.h"
#include "src/io/safetensors.h"

namespace flasheva {

// Reads and validates FOLDER/config.json, as transformers 4 and 5 write it. Error{data} names file and key
// for anything that changes the mathematics and is not supported (hidden_act, rope scaling, tied embeddings,
// attention_bias false). `training`: also refuses dropout above 0.
ModelConfig read_model_config(const std::filesystem::path& folder, bool training = false);

// The same for parsed JSON; `where` prefixes messages.
ModelConfig model_config_from_json(const nlohmann::json& json, const std::string& where,
                                   bool training = false);

// config.json's content; loads in transformers 4.57 and 5. `torch_dtype` as Hugging Face names it
// ("float32").
nlohmann::json model_config_to_json(const ModelConfig& config, const std::string& torch_dtype);

// The name and shape of every tensor of a model, in file order.
struct TensorSpec {
  std::string name;
  std::vector<std::int64_t> shape;
};
std::vector<TensorSpec> tensor_specs(const ModelConfig& config);

// True for the buffers that old checkpoints carry (attention.bias, attention.masked_bias,
// rotary_emb.inv_freq): they are skipped on reading.
bool is_legacy_buffer(const std::string& tensor_name);

// Error{usage} where write_model_folder would refuse `folder`: it exists, is not empty and is not a model
// folder that it wrote, or holds more than that. Worth asking before long work.
void check_model_folder_destination(const std::filesystem::path& folder);

// Writes a model folder: config.json, generation_config.json, model.safetensors, the modeling files where the
// model is not plain gpt_neox, training.json and the model card README.md (model_card.h), and the tokenizer
// files of `tokenizer_from` where given (a folder). The folder appears whole or not at all (temporary folder
// beside it, then rename); an earlier one of flasheva's is replaced, anything else is refused: a download, a
// checkpoint. `tensors` and `tokenizer_from` may come from the folder that is replaced.
void write_model_folder(const std::filesystem::path& folder, const ModelConfig& config,
                        const NamedTensors& tensors, const std::filesystem::path& tokenizer_from,
                        const nlohmann::json& training);

// config.json, generation_config.json, modeling and tokenizer files alone, into an existing folder.
void write_model_folder_files(const std::filesystem::path& folder, const ModelConfig& config,
                              const std::string& torch_dtype, const std::filesystem::path& tokenizer_from);

}  // namespace flasheva
