// flasheva plan CONFIG: what a run takes and how long it may last, without running or allocating it.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "src/commands/commands.h"
#include "src/commands/device_options.h"
#include "src/config/config.h"
#include "src/core/error.h"
#include "src/core/text.h"
#include "src/training/flops.h"
#include "src/training/gemm_peak.h"
#include "src/training/recipe.h"
#include "src/training/trainer.h"

namespace flasheva {

namespace {

// A step reaches about this share of the GEMM peak; the estimate of time says so.
constexpr double assumed_share_of_peak = 0.7;

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  int ranks = 1;
  DeviceOptions device;
};

void print_phase(const Config& config, const ModelConfig& model, const PhaseConfig& phase,
                 const MemoryPlan& plan, double peak) {
  ParameterTable parameters(model);
  parameters.select(phase.train);
  fmt::print("\nphase {}: {} steps, {}, {} parameters trained\n", phase.name, phase.steps,
             to_string(phase.precision), parameters.trained_count());
  for (const MemoryPlan::Category& category : plan.categories())
    fmt::print("  {:<20} {:>12}\n", category.name, format_bytes(category.bytes));
  fmt::print("  {:<20} {:>12}\n", "in all", format_bytes(plan.bytes()));
  const std::int64_t tokens = phase.steps * config.batch.sequences * config.data.sequence_length;
  const double flops = step_flops(model, parameters, config.batch.sequences, config.data.sequence_length);
  const double seconds = flops * static_cast<double>(phase.steps) / (assumed_share_of_peak * peak);
  fmt::print(
      "  {} tokens, {:.3g} model FLOPs a step, about {:.0f} s at {:.0f} % of the {:.0f} GFLOP/s that "
      "products "
      "reach here\n",
      tokens, flops, seconds, 100 * assumed_share_of_peak, peak / 1e9);
}

void run(const Options& options) {
  const Config config = load_config(options.config, options.overrides);
  const ModelConfig model = resolve_model(config);
  const auto ops = options.device.make_ops(to_string(config.run.device));
  if (config.batch.sequences < options.ranks)
    fail(ExitCode::usage, "--ranks {}: batch.sequences is {}; each rank needs a sequence", options.ranks,
         config.batch.sequences);
  // The last rank never has fewer sequences than another.
  const std::vector<MemoryPlan> plans =
      Trainer::plans(config, model, ops->device(), options.ranks - 1, options.ranks);
  fmt::print("{}: {} parameters, {} layers, hidden {}, {} heads\n", config.run.name,
             ParameterTable(model).count(), model.num_hidden_layers, model.hidden_size,
             model.num_attention_heads);
  const bool on_gpu = ops->device() == Device::cuda;
  std::size_t largest = 0;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const DType compute = compute_type(config.phases[i].precision);
    const std::int64_t side = on_gpu ? 4096 : 512;
    const double peak = measure_gemm_peak(*ops, compute, {{side, side, side}}, 0.1);
    print_phase(config, model, config.phases[i], plans[i], peak);
    largest = std::max(largest, plans[i].bytes());
  }
  fmt::print("\n{}memory taken before step 0, per rank: {}\n", on_gpu ? "GPU " : "", format_bytes(largest));
}

}  // namespace

void add_plan(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      program.add_subcommand("plan", "Parameters, memory, tokens and time of a run, without running it");
  command->add_option("CONFIG", options->config, "YAML file")->required();
  command->add_option("OVERRIDES", options->overrides, "KEY=VALUE, e.g. batch.micro=2");
  command->add_option("--ranks", options->ranks, "of how many ranks: the memory of the one with the most")
      ->check(CLI::PositiveNumber);
  options->device.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace flasheva
