// --device and --threads, which every command that computes takes.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "kernels/ops.h"

namespace flasheva {

struct DeviceOptions {
  std::string device = "auto";
  int threads = 0;

  void add_to(CLI::App& command);
  // auto: the GPU where this build and machine have one. Error{usage} for a device that they do not have.
  // `configured`: what run.device says; the flag, where given, comes first. `default_threads`: where
  // --threads is not given; 0: all cores.
  std::unique_ptr<Ops> make_ops(const std::string& configured = "auto", int default_threads = 0) const;
};

}  // namespace flasheva
