#include "src/commands/bench_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernels/host_staging.h"
#include "kernels/timed_ops.h"
#include "src/commands/figures.h"
#include "src/commands/machine_peaks.h"
#include "src/commands/operation_times.h"
#include "src/core/clock.h"
#include "src/core/error.h"
#include "src/io/model_folder.h"
#include "src/model/initialize.h"
#include "src/training/flops.h"
#include "src/training/gemm_peak.h"
#include "src/training/recipe.h"
#include "src/training/trainer.h"

namespace flasheva {

namespace {

const PhaseConfig& find_phase(const Config& config, const std::string& name) {
  if (name.empty()) return config.phases.back();
  for (const PhaseConfig& phase : config.phases)
    if (phase.name == name) return phase;
  fail(ExitCode::usage, "--phase {}: the config has no phase of that name", name);
}

void fill_with_synthetic_tokens(HostBatch& batch, std::int64_t vocab_size) {
  std::uint32_t state = 1;
  const auto next = [&] {
    return static_cast<std::int32_t>((state = state * 1664525u + 1013904223u) >> 8) % vocab_size;
  };
  for (std::int64_t i = 0; i < batch.tokens.size(); ++i) {
    batch.tokens.as<std::int32_t>()[i] = static_cast<std::int32_t>(next());
    batch.targets.as<std::int32_t>()[i] = static_cast<std::int32_t>(next());
    batch.mask.as<std::uint8_t>()[i] = 1;
  }
}

// The products of a step with the most work, and a large cube.
std::vector<GemmShape> shapes_of(const ModelConfig& model, std::int64_t rows) {
  const std::int64_t D = model.hidden_size, I = model.intermediate_size;
  return {{rows, 3 * D, D},
          {rows, I, D},
          {rows, D, I},
          {std::min<std::int64_t>(rows, 512), model.vocab_size, D},
          {4096, 4096, 4096}};
}

void write_start(const std::string& folder, Trainer& trainer, const Config& config, const ModelConfig& model,
                 Ops& ops) {
  HostStaging staging;
  NamedTensors weights, tokens;
  for (const Parameter& parameter : trainer.parameters().all())
    weights.emplace_back(parameter.name, stored_from(parameter.master, [&](const Tensor& master) {
                           return staging.read(ops, master);
                         }));
  write_model_folder(folder, model, weights, {}, nlohmann::json::object());
  const Shape shape{config.batch.sequences, config.data.sequence_length};
  tokens.emplace_back("tokens", stored(shaped(trainer.batch().tokens, shape)));
  tokens.emplace_back("targets", stored(shaped(trainer.batch().targets, shape)));
  write_safetensors(std::filesystem::path(folder) / "tokens.safetensors", tokens);
  fmt::print("{}\n", folder);
}

struct Steps {
  double first_loss = 0, median_seconds = 0;
};

// The first, which plans products and records graphs, is not timed.
Steps run_steps(Trainer& trainer, Ops& ops, TimedOps& timed, int count) {
  Steps steps;
  Progress progress;
  std::vector<double> seconds;
  steps.first_loss = trainer.step_on_batch(progress).loss;
  timed.clear();
  for (progress.step = 1; progress.step <= count; ++progress.step) {
    ops.synchronize();
    const double start = seconds_now();
    trainer.step_on_batch(progress);
    ops.synchronize();
    seconds.push_back(seconds_now() - start);
  }
  steps.median_seconds = median(seconds);
  return steps;
}

}  // namespace

void bench_step(const BenchStepOptions& options) {
  Config config = load_config(options.config, options.overrides);
  config.checkpoint.every = 0;
  if (!options.write_start.empty()) check_model_folder_destination(options.write_start);
  const ModelConfig model = resolve_model(config);
  const PhaseConfig& phase = find_phase(config, options.phase);
  const auto ops = options.device.make_ops(to_string(config.run.device));
  TimedOps timed(*ops);
  const auto communicator = make_single_communicator();

  Trainer trainer(config, model, options.operations ? static_cast<Ops&>(timed) : *ops, *communicator);
  initialize_from_scratch(trainer.parameters(), model, *ops, config.run.seed);
  trainer.begin_phase(phase);
  fill_with_synthetic_tokens(trainer.batch(), model.vocab_size);
  if (!options.write_start.empty()) return write_start(options.write_start, trainer, config, model, *ops);

  const auto [first_loss, step_seconds] = run_steps(trainer, *ops, timed, options.steps);
  const std::int64_t S = config.batch.sequences, T = config.data.sequence_length;
  const DType compute = compute_type(phase.precision);
  const double peak =
      measure_gemm_peak(*ops, compute, shapes_of(model, std::min(config.batch.micro, S) * T), 0.5);
  const double speed = step_flops(model, trainer.parameters(), S, T) / step_seconds;
  nlohmann::ordered_json figures = {{"phase", phase.name},
                                    {"precision", to_string(phase.precision)},
                                    {"seconds_per_step", step_seconds},
                                    {"tokens_per_second", static_cast<double>(S * T) / step_seconds},
                                    {"model_flops_per_second", speed},
                                    {"gemm_peak_flops_per_second", peak},
                                    {"share_of_peak", speed / peak},
                                    {"first_loss", first_loss}};
  if (options.operations) {
    figures["copy_peak_bytes_per_second"] = measure_copy_peak(*ops);
    figures["operations"] = operations_of(timed, options.steps);
  }
  print_figures(figures, options.json);
  if (options.operations) print_operations(figures["operations"], step_seconds);
}

}  // namespace flasheva
