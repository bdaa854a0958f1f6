// Which device --device and run.device give on machines with other GPUs, which the simulator stands in for.
#include "src/commands/device_options.h"

#include <gtest/gtest.h>

#include "tests/cuda_simulator/simulator.h"
#include "tests/support/expect_error.h"

namespace flasheva {
namespace {

using Gpus = std::vector<simulator::Gpu>;

std::unique_ptr<Ops> ops_of(const Gpus& gpus, const std::vector<std::string>& arguments,
                            const std::string& configured) {
  simulator::gpus = gpus;
  CLI::App command;
  DeviceOptions options;
  options.add_to(command);
  command.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  return options.make_ops(configured);
}

TEST(DeviceOptions, TheFlagComesBeforeTheConfig) {
  const Gpus one = {{9, 0}};
  EXPECT_EQ(ops_of(one, {}, "cpu")->device(), Device::cpu);
  EXPECT_EQ(ops_of(one, {}, "auto")->device(), Device::cuda);
  EXPECT_EQ(ops_of(one, {"--device", "auto"}, "cpu")->device(), Device::cuda);
  EXPECT_EQ(ops_of(one, {"--device", "cuda"}, "cpu")->device(), Device::cuda);
  EXPECT_EQ(ops_of(one, {"--device", "cpu"}, "cuda")->device(), Device::cpu);
}

TEST(DeviceOptions, AutoPassesOverGpusThatHaveNoKernels) {
  EXPECT_EQ(ops_of({}, {}, "auto")->device(), Device::cpu);
  EXPECT_EQ(ops_of({{7, 0}, {7, 5}}, {}, "auto")->device(), Device::cpu);
  EXPECT_EQ(ops_of({{10, 0}, {12, 0}}, {}, "auto")->device(), Device::cpu);
  EXPECT_EQ(ops_of({{7, 5}, {10, 0}, {8, 0}}, {}, "auto")->device(), Device::cuda);
}

TEST(DeviceOptions, CudaOnSuchAGpuOrNoneSaysWhy) {
  expect_error(ExitCode::usage,
               "simulated, 1024 MiB, compute capability 7.5, too old: 8.0 is needed; use --device cpu", [] {
                 ops_of({{7, 5}}, {"--device", "cuda"}, "auto");
               });
  expect_error(ExitCode::usage,
               "compute capability 10.0, this build has kernels for 80-real 90a-real alone: build with "
               "-DCMAKE_CUDA_ARCHITECTURES=100; use --device cpu",
               [] {
                 ops_of({{10, 0}}, {}, "cuda");
               });
  expect_error(ExitCode::usage, "none: cudaErrorNoDevice; use --device cpu", [] { ops_of({}, {}, "cuda"); });
}

}  // namespace
}  // namespace flasheva
