// flasheva train CONFIG [key=value ...]
#include <memory>
#include <string>
#include <vector>

#include "src/commands/commands.h"
#include "src/commands/device_options.h"
#include "src/config/config.h"
#include "src/core/error.h"
#include "src/core/log.h"
#include "src/distributed/communicator.h"
#include "src/training/recipe.h"

namespace flasheva {

namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  bool fresh = false;
  DeviceOptions device;
};

void run_on(Communicator& communicator, const Options& options) {
  Config config;
  std::unique_ptr<Ops> ops;
  succeed_together(communicator, [&] {
    config = load_config(options.config, options.overrides);
    ops = options.device.make_ops(to_string(config.run.device), communicator);
  });
  const std::unique_ptr<DeviceSums> sums = make_device_sums(communicator, *ops);
  if (train(config, *ops, communicator, options.fresh) == TrainOutcome::preempted)
    fail_together(communicator, ExitCode::preempted,
                  "stopped by a signal, checkpoint saved; the same command goes on from there");
}

void run(const Options& options) {
  const auto communicator = make_communicator();
  if (communicator->rank() != 0) silence_log();
  try {
    run_on(*communicator, options);
  } catch (const SharedError& error) {
    log_error(error.what());  // now: when the first rank has ended, the launcher ends the others
    communicator->leave();
    throw Error(error.code(), "");
  }
  communicator->leave();
}

}  // namespace

void add_train(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("train", "Run the phases of a config; goes on where it stopped");
  command->add_option("CONFIG", options->config, "YAML file")->required();
  command->add_option("OVERRIDES", options->overrides, "KEY=VALUE, e.g. phases.0.steps=100");
  command->add_flag("--fresh", options->fresh,
                    "start anew; an earlier run in the output folder is moved aside");
  options->device.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace flasheva
