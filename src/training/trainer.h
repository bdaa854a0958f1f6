// One model in training: its memory, and one optimizer step as numbered stages.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "src/config/config.h"
#include "src/distributed/communicator.h"
#include "src/io/sequence_order.h"
#include "src/io/token_file.h"
#include "src/model/gpt_neox.h"
#include "src/model/scratch.h"
#include "src/model/token_staging.h"
#include "src/training/batches.h"
#include "src/training/gradients.h"
#include "src/training/loss_scaler.h"
#include "src/training/optimizer.h"
#include "src/training/snapshot.h"

namespace flasheva {

// Where a run stands.
struct Progress {
  std::int64_t step = 0;              // optimizer steps of the whole run
  std::int64_t phase = 0;             // index of the current phase
  std::int64_t step_in_phase = 0;     // optimizer steps done in it
  std::int64_t skipped_in_phase = 0;  // of them, those that changed nothing
  std::int64_t passed_over = 0;       // batches of the data set that a roll back left out
};

struct StepResult {
  double loss = 0;  // mean over the global batch's counted targets, before the update, nats
  double lr = 0;
  GradientNorms gradient;
  std::int64_t tokens = 0;  // of the global batch
  // Where the first value that is not finite appeared ("layer 3, forward"); "" if all are.
  std::string not_finite;
  bool updated = false;  // if not, weights and moments are as before, bit for bit

  double loss_scale = 1;  // of this step; 1 but in float16
  // In float16 the loss was finite and the gradients were not: the loss scale is now next_loss_scale, or
  // `exhausted`.
  bool overflow = false, exhausted = false;
  double next_loss_scale = 1;
};

struct ValidationResult {
  double loss = 0;  // mean over counted targets, nats
  double accuracy = 0;
  std::int64_t targets = 0;
};

class Trainer {
 public:
  // Takes all memory of the run. `model_config` is the model after the swap. The arguments must outlive it.
  Trainer(const Config& config, const ModelConfig& model_config, Ops& ops, Communicator& communicator);
  ~Trainer() { ops_.lend_scratch({}); }
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  // The same plans, without taking any memory: what `plan` prints. One entry a phase; masters are in each.
  struct PhasePlan {
    MemoryPlan memory;  // of the device
    MemoryPlan host;    // beside it; on the CPU nothing
  };
  static std::vector<PhasePlan> plans(const Config& config, const ModelConfig& model_config,
                                      const PlannedDevice& device, int rank, int ranks);
  // The most that any of `ranks` ranks takes of either memory.
  static std::vector<PhasePlan> largest_plans(const Config& config, const ModelConfig& model_config,
                                              const PlannedDevice& device, int ranks);

  ParameterTable& parameters() { return model_.parameters; }
  const ParameterTable& parameters() const { return model_.parameters; }
  GptNeoX& model() { return model_.network; }
  Optimizer& optimizer() { return work_.optimizer; }
  std::optional<LossScaler>& loss_scaler() { return loss_scaler_; }  // in a phase in float16

  // Selects the phase's trained tensors and gives it the run's memory; optimizer state starts at 0 and the
  // loss scale as the phase says. Call it once the masters hold their values.
  void begin_phase(const PhaseConfig& phase);

  // Asked once loss and gradient are known and finite; a step that is not accepted changes nothing.
  using Accept = std::function<bool(const StepResult&)>;

  // The step's global batch is the one behind those of progress.step + progress.passed_over steps.
  StepResult step(TokenFile& data, const SequenceOrder& order, const Progress& progress,
                  const Accept& accept);

  // The same on tokens already in batch(): what a benchmark times.
  StepResult step_on_batch(const Progress& progress, const Accept& accept = {});
  HostBatch& batch() { return work_.batch; }

  // Copies what a checkpoint of this rank holds; the copy stays as it is until the next one is taken.
  const Snapshot& take_snapshot();

  // Of all weights' bits: the same on every rank, or something is broken.
  std::uint64_t weights_checksum() const;

  // Mean loss over the first `sequences` sequences of the file (all, if fewer), noise off, in the phase's
  // precision; `errors`, where given, gets each layer's attention error.
  ValidationResult validate(TokenFile& data, std::int64_t sequences, AttentionErrors* errors = nullptr);

 private:
  struct Model {
    Model(const ModelConfig& config) : parameters(config), network(config, parameters) {}
    ParameterTable parameters;
    GptNeoX network;
  };

  // What a phase works with, beside the model.
  struct Work {
    HostBatch batch;
    TokenStaging tokens;
    Tensor noise_places;          // (micro batches, 2): ChunkNoise's place of each, in host memory
    Tensor noise_place;           // (2): on a device with memory of its own, that of the micro batch at hand
    Tensor scale_on_host, scale;  // (1): GptNeoX's scale of the step's losses; as with noise_place
    Tensor losses;                // (S T): of this rank's targets, in host memory
    Tensor not_finite;            // (micro batches): GptNeoX::first_not_finite of each, in host memory
    Optimizer optimizer;
    std::unique_ptr<Gradients> gradients;
    Tensor sum_scratch;
    ScratchMemory scratch;  // of operations
    Snapshot snapshot;
  };

  // `host` is what the host works with; on the CPU it is `plan` itself.
  static void plan_phase(MemoryPlan& plan, MemoryPlan& host, Model& model, Work& work, const Config& config,
                         const PhaseConfig& phase, const PlannedDevice& device, int rank, int ranks);
  Buffer memory_of_masters();
  MemoryPlan plan_of_largest_phase(const Config& config) const;
  std::string advice_on_memory(std::size_t taken) const;
  Buffer memory_of_phases() const;
  // The values of `host` where the device reads them: there, or at `place` in its own memory.
  Tensor on_device(const Tensor& place, const Tensor& host) const;
  TokenBatch micro_batch(std::int64_t first, std::int64_t count) const;     // on the device
  ChunkNoise noise_of(const Progress& progress, std::int64_t first) const;  // of a micro batch
  void forward_backward(std::int64_t counted, double loss_scale, const Progress& progress);
  double summed_losses() const;  // of this rank, in nats
  void adapt_loss_scale(StepResult& result);
  std::string place_not_finite(const StepResult& result);

  const Config& config_;
  Ops& ops_;
  Communicator& communicator_;
  Model model_;
  Buffer masters_, phase_memory_;
  Buffer host_memory_{0};  // of a phase, where the device has memory of its own
  const PhaseConfig* phase_ = nullptr;
  std::int64_t first_sequence_, sequences_;  // this rank's share of the global batch
  std::int64_t most_sequences_;              // of any rank
  Work work_;
  std::optional<LossScaler> loss_scaler_;
};

}  // namespace flasheva
