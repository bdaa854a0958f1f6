// README.md of a model folder: what the model is, how to load it, where its attention looks, how it was
// trained and what was verified, in the form that the Hugging Face hub reads (YAML front matter, Markdown).
//
// What is known of the training travels with the folder as `training.json`:
//     {"base_model": "pythia-70m", "data": "train.h5", "validation": .., "sequence_length": .., "batch": ..,
//      "seed": .., "step": .., "phases": [{"name": .., "steps": .., "precision": .., "train": [..], "lr": ..,
//      "schedule": .., "loss": .., "validation_loss": ..}], "attention_replaced": true where convert did}
// Files and folders are named without their path.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/config/model_config.h"

namespace flasheva {

// training.json's content. `config`: the run's, as to_json(Config) gives it; `step`: optimizer steps so far;
// losses are the last of each phase among the first `metrics_bytes` bytes of `metrics`, a metrics.jsonl, left
// out where it has none.
nlohmann::json training_record(const nlohmann::json& config, std::int64_t step,
                               const std::filesystem::path& metrics, std::uint64_t metrics_bytes);

// What a model folder or checkpoint knows of its training: at least {"base_model": its own name}. Error{data}
// where that is damaged.
nlohmann::json training_record_of(const std::filesystem::path& folder);

// What `convert --verify` found: logits of Hugging Face transformers against ours, both in float32.
struct Verification {
  struct Row {
    std::string name;  // "plain", "left-padded", "cached"
    double max_abs = 0, relative_l2 = 0;
  };
  std::string transformers, torch;  // versions
  double bound = 0;                 // on relative_l2
  std::vector<Row> rows;
};

// README.md's content. `training` as training.json has it; `verification`: null if there was none.
std::string model_card(const std::string& name, const ModelConfig& config, const std::string& torch_dtype,
                       const nlohmann::json& training, const Verification* verification = nullptr);

// Writes the card of a model folder anew, with what was verified.
void add_to_model_card(const std::filesystem::path& folder, const ModelConfig& config,
                       const Verification& verification);

}  // namespace flasheva
