// A run, as its YAML file says it: every key validated before anything is allocated. The keys, their defaults
// and their meaning are in README.md (Configuration). Errors are Error{usage} of one line:
//     FILE:LINE:COLUMN: what is wrong with which key; the nearest valid name
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "kernels/tensor.h"
#include "src/config/model_config.h"
#include "src/config/recompute.h"

namespace flasheva {

enum class DeviceChoice : std::uint8_t { automatic, cpu, cuda };
enum class Precision : std::uint8_t { fp32, bf16, fp16 };
enum class ScheduleKind : std::uint8_t { constant, linear, cosine };

struct RunConfig {
  std::string name;  // default: the output folder's name
  std::filesystem::path output;
  std::uint64_t seed = 1234;
  DeviceChoice device = DeviceChoice::automatic;
};

// An entry of model.attention.layers; keys left out are those of model.attention.
struct LayerOverride {
  std::optional<AttentionKind> kind;
  std::optional<std::int64_t> window, chunk;
};

// model.attention: replaces what the model folder says.
struct AttentionSettings {
  AttentionKind default_kind = AttentionKind::eva;
  std::map<std::int64_t, LayerOverride> layers;
  std::int64_t window = 256, chunk = 16;
  EvaConfig eva;  // noise.clip is eva.noise_clip
  bool noise_enabled = true;
};

struct ModelSection {
  std::filesystem::path from;               // a model folder; empty: from scratch
  std::optional<ModelConfig> architecture;  // from scratch; its `attention` is empty until resolved
  std::optional<AttentionSettings> attention;
};

struct DataSection {
  std::filesystem::path train, validation;  // HDF5 token files; validation may be empty
  std::int64_t sequence_length = 0;
  bool shuffle = true;
};

struct BatchSection {
  std::int64_t sequences = 0;  // of the global batch, each optimizer step
  std::int64_t micro = 1;      // per rank and accumulation step
  Recompute recompute = Recompute::none;
};

struct OptimizerConfig {
  double lr = 0, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.01;
  double clip = 1.0;  // of the global gradient norm; 0: off
};

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::cosine;
  std::int64_t warmup = 0;  // steps
  double min_lr_ratio = 0.1;
};

// Precision fp16 alone; what the keys do: training/loss_scaler.h.
struct LossScaleConfig {
  // Powers of two up to here. No gradient is so small that it would need more.
  static constexpr double largest = 1 << 24;

  double initial = 1 << 16, minimum = 1;
  std::int64_t growth_interval = 2000;  // steps
  std::int64_t hysteresis = 2;          // overflows
};

struct PhaseConfig {
  std::string name;
  std::int64_t steps = 0;
  Precision precision = Precision::fp32;
  bool tf32 = false;               // fp32 alone: Ops::allow_tf32
  std::vector<std::string> train;  // attention | all | globs over tensor names
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  LossScaleConfig loss_scale;
};

struct CheckpointSection {
  std::int64_t every = 1000, keep = 3;  // every 0, which no file can say: none, for a benchmark
};

struct EvaluateSection {
  std::int64_t every = 500, batches = 32;
};

struct DistributedSection {
  // How long ranks wait for one that does nothing, beyond the time of a step, seconds.
  double timeout = 30;
  // The same where no step has shown how long it takes: a file system may take minutes for a few MiB.
  double long_timeout() const { return 20 * timeout; }
  // Each rank keeps the optimizer's moments of its share of the weights alone.
  bool shard_optimizer = false;
  // And of its share of the summed gradients; implies the former.
  bool shard_gradients = false;
  // As what gradients travel between ranks.
  Precision reduce_dtype = Precision::fp32;
};

enum class SpikeAction : std::uint8_t { log, skip, rollback };

struct GuardsSection {
  std::int64_t max_skips = 5;  // steps in a row that may be passed over before the run stops
  // A step whose loss leaps out of the last `spike_window` by more than `spike_threshold` robust standard
  // deviations.
  SpikeAction spike_action = SpikeAction::log;
  std::int64_t spike_window = 128;
  double spike_threshold = 10;
  std::int64_t weights_every = 1000;  // steps between comparisons of the ranks' weights
};

struct LogSection {
  std::int64_t every = 10;
  std::int64_t layers_every = 100;  // gradient norm of every layer
  bool tensorboard = true;
};

struct Config {
  RunConfig run;
  ModelSection model;
  DataSection data;
  BatchSection batch;
  std::vector<PhaseConfig> phases;
  CheckpointSection checkpoint;
  EvaluateSection evaluate;
  DistributedSection distributed;
  GuardsSection guards;
  LogSection log;
};

// Reads and validates `path`; each override is `key.path=value` ("phases.0.steps=100"), parsed as YAML and
// validated like the file, its errors naming the override.
Config load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});

// The same for text in memory; `name` stands for the file in messages.
Config parse_config(const std::string& text, const std::string& name,
                    const std::vector<std::string>& overrides = {});

// Every key with its value, defaults filled in: what a checkpoint keeps and a resumed run is compared with.
nlohmann::json to_json(const Config& config);

// The dotted name of the first key in which two such objects differ, leaving out what may change on resume
// (run.device, batch.micro, batch.recompute, checkpoint, evaluate, log; of distributed timeout and shard_*;
// of guards max_skips and weights_every); "" if none.
std::string first_difference(const nlohmann::json& before, const nlohmann::json& now);

// model.attention alone as YAML, `{window: 128, layers: {0: full}}`: what convert's flags become.
AttentionSettings parse_attention_settings(const std::string& yaml_text, const std::string& name);

// The model's attention after the swap: settings applied over the layers of `model`. Errors name the key.
void apply_attention(ModelConfig& model, const AttentionSettings& settings, const std::string& where);

// Names as YAML and config.json write them.
const char* to_string(AttentionKind kind);
const char* to_string(WindowKind kind);
const char* to_string(ChunkVisibility visibility);
const char* to_string(Adapter adapter);
const char* to_string(Proposal proposal);
const char* to_string(ChunkBias bias);
const char* to_string(DeviceChoice device);
const char* to_string(Precision precision);
const char* to_string(Recompute recompute);
const char* to_string(ScheduleKind kind);
const char* to_string(SpikeAction action);

// What weights and activations are stored as.
constexpr DType compute_type(Precision precision) {
  return precision == Precision::bf16 ? DType::bf16 : precision == Precision::fp16 ? DType::f16 : DType::f32;
}

// The value of a name, nullopt if there is none; all names of an enumeration.
template <class Enum>
std::optional<Enum> parse_name(const std::string& name);
template <class Enum>
std::vector<std::string> names_of();

}  // namespace flasheva
