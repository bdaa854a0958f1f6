// Checkpoints: folders `step-000002000` that hold all the next step needs, and are model folders as well.
//
//     config.json, model.safetensors, tokenizer files   the model, float32 masters
//     optimizer.safetensors                             AdamW moments of the trained tensors
//     state.json                                        progress and the run's config
//     manifest.json                                     size and checksum of every file, written last
//
// A checkpoint appears whole or not at all: temporary folder, every file and the folder flushed, rename,
// parent flushed; only then are old ones pruned. A reader trusts nothing that the manifest does not confirm.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "src/config/model_config.h"
#include "src/io/safetensors.h"

namespace flasheva {

using NamedTensors = std::vector<std::pair<std::string, StoredTensor>>;

struct CheckpointContent {
  std::int64_t step = 0;  // optimizer steps of the whole run: the folder's number
  nlohmann::json state;
  NamedTensors model, optimizer;
};

// Writes CHECKPOINTS/step-N (replacing one of the same number), prunes all but the newest `keep` up to it and
// removes later ones: a run that writes N did not go on from them.
// Error{disk} leaves the checkpoints that were there as they were.
void write_checkpoint(const std::filesystem::path& checkpoints, const CheckpointContent& content,
                      const ModelConfig& config, const std::filesystem::path& tokenizer_from,
                      std::int64_t keep);

struct FoundCheckpoint {
  std::filesystem::path folder;
  nlohmann::json state;
};

// The newest checkpoint whose manifest confirms every file; `warn` gets one line for each newer one that
// fails.
std::optional<FoundCheckpoint> newest_valid_checkpoint(const std::filesystem::path& checkpoints,
                                                       const std::function<void(const std::string&)>& warn);

// What is wrong with a checkpoint folder, or "" where its manifest confirms every file.
std::string checkpoint_fault(const std::filesystem::path& folder);

// Masters and moments of a checkpoint: FOLDER/model.safetensors and FOLDER/optimizer.safetensors.
inline const char* optimizer_file_name = "optimizer.safetensors";

}  // namespace flasheva
