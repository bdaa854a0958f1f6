// --device and --threads, which every command that computes takes.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>

#include "kernels/ops.h"
#include "src/distributed/communicator.h"
#include "src/distributed/device_sums.h"

namespace flasheva {

struct DeviceOptions {
  std::optional<std::string> device;  // auto, cpu or cuda; where it is not given, as configured
  int threads = 0;

  void add_to(CLI::App& command);
  // auto: the GPU where this build and machine have one that it can use. Error{usage} for a device that they
  // do not have.
  // `configured`: what run.device says; the flag, where given, comes first.
  std::unique_ptr<Ops> make_ops(const std::string& configured = "auto") const;
  // Whether a GPU is asked for that this build and machine do not have.
  bool lacks_gpu(const std::string& configured) const;
  // make_ops for one of several ranks: its share of the cores, where --threads is not given, or the GPU of
  // its number on its machine.
  std::unique_ptr<Ops> make_ops(const std::string& configured, const Communicator& communicator) const;

 private:
  std::unique_ptr<Ops> make_ops(const std::string& configured, int default_threads, int local_rank) const;
};

// How several ranks sum what is in the memory of their GPUs; nothing for one rank, or on the CPU. All ranks
// call it. Error{usage}, on all of them: this build has no NCCL, or two ranks have one GPU.
std::unique_ptr<DeviceSums> make_device_sums(Communicator& communicator, Ops& ops);

}  // namespace flasheva
