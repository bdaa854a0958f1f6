// flasheva plan CONFIG: what a run takes and how long it may last, without running or allocating it.
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "src/commands/commands.h"
#include "src/commands/device_options.h"
#include "src/commands/number_checks.h"
#include "src/config/config.h"
#include "src/core/duration.h"
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

// Of every setting of batch.recompute, one plan a phase.
using Plans = std::map<Recompute, std::vector<Trainer::PhasePlan>>;

Plans plans_of(const Config& config, const ModelConfig& model, const PlannedDevice& device, int ranks) {
  Plans plans;
  for (const Recompute setting : {Recompute::none, Recompute::attention, Recompute::block}) {
    Config with_setting = config;
    with_setting.batch.recompute = setting;
    plans[setting] = Trainer::largest_plans(with_setting, model, device, ranks);
  }
  return plans;
}

std::size_t bytes_of(const MemoryPlan& plan, const std::string& category) {
  for (const auto& [name, bytes] : plan.categories())
    if (name == category) return bytes;
  return 0;
}

void print_memory(const Plans& plans, Recompute chosen, std::size_t phase) {
  const auto print = [](const std::string& name, std::size_t bytes) {
    fmt::print("  {:<20} {:>12}\n", name, format_bytes(bytes));
  };
  const Trainer::PhasePlan& plan = plans.at(chosen)[phase];
  for (const auto& [name, bytes] : plan.memory.categories()) print(name, bytes);
  print("in all", plan.memory.bytes());
  for (const auto& [name, bytes] : plan.host.categories()) print("host: " + name, bytes);
  std::vector<std::string> others;
  for (const auto& [setting, phases] : plans)
    if (setting != chosen)
      others.push_back(fmt::format("{} {}", to_string(setting),
                                   format_bytes(bytes_of(phases[phase].memory, "activations"))));
  fmt::print("  activations with batch.recompute: {}\n", fmt::join(others, ", "));
}

// What the measured peak is of. On the CPU it takes all of the machine's cores, which ranks of one machine
// would share.
std::string reached_where(Device device, int ranks) {
  if (ranks == 1) return "here";
  return device == Device::cuda ? fmt::format("on each of {} GPUs like this one", ranks)
                                : fmt::format("on each of {} machines like this one, a rank on each", ranks);
}

// Every rank waits for the one with the most sequences. What it takes to sum gradients does not count.
double seconds_of(const Config& config, const ModelConfig& model, const ParameterTable& parameters,
                  std::int64_t steps, int ranks, double peak) {
  const std::int64_t sequences = (config.batch.sequences + ranks - 1) / ranks;
  const double flops = step_flops(model, parameters, sequences, config.data.sequence_length);
  return flops * static_cast<double>(steps) / (assumed_share_of_peak * peak);
}

// What the time of a phase is reckoned from: what products reach on `ops` in its precision.
double peak_of_products(Ops& ops, Precision precision) {
  const std::int64_t side = ops.device() == Device::cuda ? 4096 : 512;
  return measure_gemm_peak(ops, compute_type(precision), {{side, side, side}}, 0.1);
}

// `ops` is null where the device that the run is for is not at hand.
void print_phase(const Config& config, const ModelConfig& model, std::size_t number, const Plans& plans,
                 Ops* ops, int ranks) {
  const PhaseConfig& phase = config.phases[number];
  ParameterTable parameters(model);
  parameters.select(phase.train);
  fmt::print("\nphase {}: {} steps, {}, {} parameters trained\n", phase.name, phase.steps,
             to_string(phase.precision), parameters.trained_count());
  print_memory(plans, config.batch.recompute, number);
  const double tokens = static_cast<double>(phase.steps) *
                        static_cast<double>(config.batch.sequences * config.data.sequence_length);
  const double flops = step_flops(model, parameters, config.batch.sequences, config.data.sequence_length);
  fmt::print("  {:.0f} tokens, {:.3g} model FLOPs a step", tokens, flops);
  if (ops == nullptr) {
    fmt::print("; for the time, run this where there is a GPU\n");
    return;
  }
  const double peak = peak_of_products(*ops, phase.precision);
  const double seconds = seconds_of(config, model, parameters, phase.steps, ranks, peak);
  const std::string in_words = seconds < 120 ? "" : " (" + format_duration(seconds) + ")";
  fmt::print(", about {:.0f} s{} at {:.0f} % of the {:.0f} GFLOP/s that products reach {}\n", seconds,
             in_words, 100 * assumed_share_of_peak, peak / 1e9, reached_where(ops->device(), ranks));
}

void run(const Options& options) {
  const Config config = load_config(options.config, options.overrides);
  const ModelConfig model = resolve_model(config);
  const std::string configured = to_string(config.run.device);
  const auto ops = options.device.lacks_gpu(configured) ? nullptr : options.device.make_ops(configured);
  const PlannedDevice device = ops ? PlannedDevice(*ops) : PlannedDevice(Device::cuda);
  if (config.batch.sequences < options.ranks)
    fail(ExitCode::usage, "--ranks {}: batch.sequences is {}; each rank needs a sequence", options.ranks,
         config.batch.sequences);
  const Plans plans = plans_of(config, model, device, options.ranks);
  fmt::print("{}: {} parameters, {} layers, hidden {}, {} heads\n", config.run.name,
             ParameterTable(model).count(), model.num_hidden_layers, model.hidden_size,
             model.num_attention_heads);
  std::size_t largest = 0;
  for (std::size_t i = 0; i < config.phases.size(); ++i) {
    print_phase(config, model, i, plans, ops.get(), options.ranks);
    largest = std::max(largest, plans.at(config.batch.recompute)[i].memory.bytes());
  }
  fmt::print("\n{}memory taken before step 0, per rank: {}\n", device.kind == Device::cuda ? "GPU " : "",
             format_bytes(largest));
}

}  // namespace

void add_plan(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      program.add_subcommand("plan", "Parameters, memory, tokens and time of a run, without running it");
  command->add_option("CONFIG", options->config, "YAML file")->required();
  command->add_option("OVERRIDES", options->overrides, "KEY=VALUE, e.g. batch.micro=2");
  command->option_defaults()->always_capture_default();
  command
      ->add_option("--ranks", options->ranks,
                   "of how many ranks: the memory of the one with the most, the time of them all")
      ->check(integer_from(1, max_integer));
  options->device.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace flasheva
