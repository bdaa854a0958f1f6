#include "src/commands/device_options.h"

#include "src/core/error.h"
#ifdef FLASHEVA_HAS_CUDA
#include "kernels/cuda/devices.h"
#endif

namespace flasheva {

namespace {

bool gpu_is_there() {
#ifdef FLASHEVA_HAS_CUDA
  return count_cuda_devices() > 0;
#else
  return false;
#endif
}

std::unique_ptr<Ops> make_gpu_ops() {
#ifdef FLASHEVA_HAS_CUDA
  if (gpu_is_there()) return make_cuda_ops();
  fail(ExitCode::usage, "device cuda: {}; use --device cpu, or a machine with a GPU and its driver",
       describe_cuda_devices().front());
#else
  fail(
      ExitCode::usage,
      "device cuda: this build computes on the CPU alone; build it where nvcc is found, or use --device cpu");
#endif
}

}  // namespace

void DeviceOptions::add_to(CLI::App& command) {
  command.add_option("--device", device, "auto, cpu or cuda")->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  command.add_option("--threads", threads, "threads on the CPU; 0: all cores")->check(CLI::NonNegativeNumber);
}

std::unique_ptr<Ops> DeviceOptions::make_ops(const std::string& configured, int default_threads) const {
  const std::string& wanted = device == "auto" ? configured : device;
  if (wanted == "cuda" || (wanted == "auto" && gpu_is_there())) return make_gpu_ops();
  return make_cpu_ops(threads > 0 ? threads : default_threads);
}

}  // namespace flasheva
