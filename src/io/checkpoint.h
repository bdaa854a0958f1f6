// Checkpoints: folders `step-000002000` that hold all the next step needs, and are model folders as well.
//
//     config.json, model.safetensors   the model, float32 masters; beside them the tokenizer's files
//     optimizer.safetensors            AdamW moments of the trained tensors; where ranks share them,
//                                      optimizer-00001-of-00004.safetensors and so on
//     state.json                       progress, the run's config, and whether the checkpoint is an
//                                      interim one, which the next one replaces
//     manifest.json                    size and checksum of every file, written last
//
// A checkpoint appears whole or not at all: temporary folder, every file and the folder flushed, rename,
// parent flushed; only then are old ones pruned. A reader trusts nothing that the manifest does not confirm.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "src/config/model_config.h"
#include "src/io/safetensors.h"

namespace flasheva {

// A file as the manifest describes it.
struct CheckpointFile {
  std::string name;
  std::uint64_t bytes = 0;
  std::string xxh3_128;  // 32 hexadecimal digits
};

// The file of part `part` of `parts` of the moments.
std::string moments_file_name(int part, int parts);

// Writes CHECKPOINTS/step-N. Error{disk} of any call, followed by abandon(), leaves the checkpoints that were
// there as they were.
class CheckpointWriter {
 public:
  // `step`: optimizer steps of the whole run, the folder's number.
  CheckpointWriter(const std::filesystem::path& checkpoints, std::int64_t step);

  // First, on one rank. `bytes`: about how large the checkpoint will be; refused where the disk has no room.
  void begin(std::uintmax_t bytes);
  // Then, side by side: part 0 .. parts - 1 of the moments, each on its rank; the model and where the run
  // stands, on one rank.
  CheckpointFile write_moments(const NamedTensors& moments, int part, int parts);
  void write_model(const NamedTensors& model, const nlohmann::json& state, const ModelConfig& config,
                   const std::filesystem::path& tokenizer_from);
  // Last, on one rank, with what all write_moments() returned: the manifest, and the folder gets its name
  // (replacing one of the same number). Prunes all but the newest `keep` up to it, and interim ones before
  // it, which do not count; removes later ones: a run that writes N did not go on from them.
  void finish(const std::vector<CheckpointFile>& moments, std::int64_t keep);
  void abandon();

 private:
  std::filesystem::path folder_, temporary_;
};

struct FoundCheckpoint {
  std::filesystem::path folder;
  nlohmann::json state;
};

// The newest checkpoint whose manifest confirms every file; `warn` gets one line for each newer one that
// fails.
std::optional<FoundCheckpoint> newest_valid_checkpoint(const std::filesystem::path& checkpoints,
                                                       const std::function<void(const std::string&)>& warn);

// The checkpoint of step N, which newest_valid_checkpoint confirmed elsewhere. Error{data} if it is not here.
FoundCheckpoint checkpoint_of_step(const std::filesystem::path& checkpoints, std::int64_t step);

// What is wrong with a checkpoint folder, or "" where its manifest confirms every file.
std::string checkpoint_fault(const std::filesystem::path& folder);

// The name under which elements `first` .. of a tensor are stored: its own where they are all of it.
std::string name_of_part(const std::string& tensor, std::int64_t first, bool whole);

// The moments in a checkpoint, in however many parts they were written.
class StoredMoments {
 public:
  explicit StoredMoments(const std::filesystem::path& folder);

  // out (count), float32, = elements first .. first + count - 1 of a tensor. Error{data} where they are not
  // there.
  void load(Tensor out, const std::string& tensor, std::int64_t first) const;

 private:
  struct Part {
    std::int64_t first;
    const StoredTensor* elements;
  };
  std::filesystem::path folder_;
  std::vector<std::unique_ptr<SafetensorsReader>> files_;
  std::map<std::string, std::vector<Part>> parts_;
};

}  // namespace flasheva
