// flasheva info: what this binary was built with and what this machine has.
#include <fmt/format.h>
#include <hdf5.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "kernels/cpu/gemm.h"
#include "src/commands/commands.h"
#include "src/distributed/communicator.h"
#ifdef FLASHEVA_HAS_CUDA
#include "kernels/cuda/devices.h"
#endif

namespace flasheva {

namespace {

std::string hdf5_version() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

void run() {
  fmt::print("flasheva {}\n", FLASHEVA_VERSION);
  fmt::print("build      {}, compiler {}, -march={}\n", FLASHEVA_BUILD_TYPE, __VERSION__, FLASHEVA_CPU_ARCH);
  fmt::print("libraries  {}, HDF5 {}, fmt {}, nlohmann-json {}.{}.{}, CLI11 {}\n", gemm_library(),
             hdf5_version(), FMT_VERSION, NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
             NLOHMANN_JSON_VERSION_PATCH, CLI11_VERSION);
  const auto ranks = make_communicator();
  fmt::print("cpu        {} cores\n", std::thread::hardware_concurrency());
  fmt::print("ranks      rank {} of {}\n", ranks->rank(), ranks->description());
  ranks->leave();
#ifdef FLASHEVA_HAS_CUDA
  for (const std::string& line : describe_cuda_devices()) fmt::print("cuda       {}\n", line);
#else
  fmt::print("cuda       not built\n");
#endif
}

}  // namespace

void add_info(CLI::App& program) {
  CLI::App* command =
      program.add_subcommand("info", "Devices, instruction sets, library versions, build options");
  command->callback([] { run(); });
}

}  // namespace flasheva
