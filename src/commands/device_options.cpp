#include "src/commands/device_options.h"

#include "src/core/error.h"

namespace flasheva {

void DeviceOptions::add_to(CLI::App& command) {
  command.add_option("--device", device, "auto, cpu or cuda")->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  command.add_option("--threads", threads, "threads on the CPU; 0: all cores")->check(CLI::NonNegativeNumber);
}

std::unique_ptr<Ops> DeviceOptions::make_ops(const std::string& configured, int default_threads) const {
  const std::string& wanted = device == "auto" ? configured : device;
  if (wanted == "cuda")
    fail(ExitCode::usage, "device cuda: this build computes on the CPU alone; use --device cpu");
  return make_cpu_ops(threads > 0 ? threads : default_threads);
}

}  // namespace flasheva
