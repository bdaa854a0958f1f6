// What a run is at a moment: the trainer's weights and moments, its progress, and the output folder in which
// both are kept. All ranks call everything together; rank 0 alone writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "kernels/host_staging.h"
#include "src/core/file.h"
#include "src/io/checkpoint.h"
#include "src/io/tokenizer.h"
#include "src/model/initialize.h"
#include "src/training/checkpoint_saver.h"
#include "src/training/guards.h"
#include "src/training/metrics.h"
#include "src/training/tensorboard.h"
#include "src/training/trainer.h"

namespace flasheva {

class RunState {
 public:
  // `before` is the model that config.model.from describes, `model` the one that is trained. `tokenizer`:
  // what the training tokens name. The arguments must outlive it.
  RunState(const Config& config, const ModelConfig& before, const ModelConfig& model, std::string tokenizer,
           Trainer& trainer, Guards& guards, Ops& ops, Communicator& communicator);

  Progress progress;

  bool finished() const { return progress.phase == static_cast<std::int64_t>(config_.phases.size()); }

  // Makes the output folder, moving an earlier run aside if `fresh`, keeps other programs out, and goes on
  // from its newest valid checkpoint; without one, from config.model.from or from scratch.
  void open(bool fresh);

  // Begins the current phase where the state stands in it.
  void begin_phase(const PhaseConfig& phase);

  // Starts a checkpoint of the moment, once the one before is there; it is written while the run goes on. An
  // interim one lives until the next. SharedError{disk} of this one's start, of the one before's end.
  void save(bool interim);
  // At the end of every step: whether this rank is writing one, and what to do once all know whether any is.
  bool saving() const { return saver_.busy(); }
  void go_on_saving(bool any_saving) { saver_.go_on(any_saving); }
  // Returns when what save() started is there.
  void finish_saving() { saver_.finish(); }

  // Back to the newest valid checkpoint, but for progress.passed_over: the batches since then are left out.
  // False if there is none.
  bool roll_back(const PhaseConfig& phase);

  void write_model();
  void write_model_if_missing();

  // Appends to metrics.jsonl and TensorBoard's file, with the time.
  void record(nlohmann::ordered_json entry);

  // What the run's tokens are text by; nullptr where nothing says, and on ranks that do not write.
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }

 private:
  void together(const std::function<void()>& work) { succeed_together(communicator_, work); }
  std::optional<FoundCheckpoint> find_checkpoint();
  void prepare_output(bool fresh);
  void find_tokenizer();
  std::filesystem::path own_tokenizer_folder() const { return output_ / "tokenizer"; }
  void start_from(const std::optional<FoundCheckpoint>& found);
  void open_logs();
  nlohmann::ordered_json description() const;
  void go_on_from(const FoundCheckpoint& found);
  void report_swap(const SwapReport& report);
  void load_moments();
  std::uintmax_t checkpoint_bytes() const;
  nlohmann::json checkpoint_state(bool interim) const;
  StoredTensor to_store(const Tensor& tensor);
  NamedTensors masters();

  const Config& config_;
  const ModelConfig &before_, &model_config_;
  const std::string tokenizer_name_;
  Trainer& trainer_;
  Guards& guards_;
  Ops& ops_;
  Communicator& communicator_;
  HostStaging staging_;  // of tensors between device and files
  const bool writes_;    // rank 0
  const std::filesystem::path output_;
  std::optional<FolderLock> lock_;                       // of output_, where writes_
  std::uint64_t kept_metrics_bytes_ = 0;                 // of metrics.jsonl, by the checkpoint gone on from
  std::optional<MetricsLog> metrics_;                    // where writes_, unless the run had finished before
  std::optional<TensorboardLog> tensorboard_;            // where metrics_ and asked for
  std::unique_ptr<Tokenizer> tokenizer_;                 // where writes_
  std::filesystem::path tokenizer_folder_;               // empty: no tokenizer
  std::optional<std::filesystem::path> resumed_from_;    // where the current phase's moments are
  std::optional<LossScaler::State> resumed_loss_scale_;  // of the current phase, in float16
  CheckpointSaver saver_;                                // the first to go: its thread uses the others
};

}  // namespace flasheva
