#include "src/commands/device_options.h"

#include <vector>

#include "src/commands/number_checks.h"
#include "src/core/error.h"
#include "src/core/log.h"
#ifdef FLASHEVA_HAS_CUDA
#include "kernels/cuda/devices.h"
#endif

namespace flasheva {

namespace {

std::vector<int> usable_gpus() {
#ifdef FLASHEVA_HAS_CUDA
  return usable_cuda_devices();
#else
  return {};
#endif
}

[[maybe_unused]] int gpu_of_rank(const std::vector<int>& usable, int local_rank) {
  return usable[static_cast<std::size_t>(local_rank) % usable.size()];
}

std::unique_ptr<Ops> make_gpu_ops([[maybe_unused]] int local_rank) {
#ifdef FLASHEVA_HAS_CUDA
  if (const auto usable = usable_gpus(); !usable.empty())
    return make_cuda_ops(gpu_of_rank(usable, local_rank));
  fail(ExitCode::usage, "device cuda: {}; use --device cpu, or a machine with a usable GPU and its driver",
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
  command.add_option("--threads", threads, "threads on the CPU; 0: all cores")
      ->check(integer_from(0, most_threads));
}

std::unique_ptr<Ops> DeviceOptions::make_ops(const std::string& configured, int default_threads,
                                             int local_rank) const {
  const std::string wanted = device.value_or(configured);
  if (wanted == "cuda" || (wanted == "auto" && !usable_gpus().empty())) return make_gpu_ops(local_rank);
  return make_cpu_ops(threads > 0 ? threads : default_threads);
}

std::unique_ptr<Ops> DeviceOptions::make_ops(const std::string& configured) const {
  return make_ops(configured, 0, 0);
}

std::unique_ptr<Ops> DeviceOptions::make_ops(const std::string& configured,
                                             const Communicator& communicator) const {
  return make_ops(configured, communicator.threads(), communicator.local_rank());
}

bool DeviceOptions::lacks_gpu(const std::string& configured) const {
  return device.value_or(configured) == "cuda" && usable_gpus().empty();
}

std::unique_ptr<DeviceSums> make_device_sums(Communicator& communicator, [[maybe_unused]] Ops& ops) {
  const bool on_gpu = ops.device() == Device::cuda;
  if (communicator.size() == 1 || !on_any_rank(communicator, on_gpu)) return nullptr;
  if (on_any_rank(communicator, !on_gpu))
    fail_together(
        communicator, ExitCode::usage,
        "some ranks compute on a GPU and others on the CPU; give all of them --device cpu, or a GPU");
#ifdef FLASHEVA_HAS_NCCL
  auto sums = make_nccl_sums(communicator, ops);
  communicator.sum_on_gpu(*sums);
  const int gpu = gpu_of_rank(usable_gpus(), communicator.local_rank());
  const std::string own = fmt::format("rank {}: GPU {}, {}", communicator.rank(), gpu,
                                      describe_cuda_devices()[static_cast<std::size_t>(gpu)]);
  for (const std::string& line : from_all_ranks(communicator, own)) log_line(line);
  return sums;
#else
  fail_together(communicator, ExitCode::usage,
                "several ranks on GPUs need NCCL, which this build was made without; install it and build "
                "again, start one rank, or add --device cpu");
#endif
}

}  // namespace flasheva
