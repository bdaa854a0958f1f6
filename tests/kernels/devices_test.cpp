// Which GPUs a build has kernels for.
#include "kernels/cuda/devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cuda_simulator/simulator.h"

namespace flasheva {
namespace {

using testing::ElementsAre;
using testing::EndsWith;

const std::vector<simulator::Gpu> known = {{8, 0}, {8, 9}, {9, 0}, {10, 0}, {10, 3}, {12, 0}};

std::string usable_with(std::string_view architectures) {
  std::string usable;
  for (const auto& [major, minor] : known)
    if (kernels_run_on(architectures, major, minor))
      usable += (usable.empty() ? "" : " ") + std::to_string(major) + "." + std::to_string(minor);
  return usable;
}

TEST(Devices, KernelsRunOnTheGpusThatCudaSays) {
  EXPECT_EQ(usable_with("80-real"), "8.0 8.9");
  EXPECT_EQ(usable_with("86-real"), "8.9");
  EXPECT_EQ(usable_with("80-virtual"), "8.0 8.9 9.0 10.0 10.3 12.0");
  EXPECT_EQ(usable_with("90"), "9.0 10.0 10.3 12.0");
  EXPECT_EQ(usable_with("90a-real"), "9.0");
  EXPECT_EQ(usable_with("90a"), "9.0");
  EXPECT_EQ(usable_with("100f-real"), "10.0 10.3");
  EXPECT_EQ(usable_with("103-real"), "10.3");
  EXPECT_EQ(usable_with("89-real 90a-real 120-real"), "8.9 9.0 12.0");
  for (const char* unknown : {"native", "all-major", "OFF"})
    EXPECT_EQ(usable_with(unknown), "8.0 8.9 9.0 10.0 10.3 12.0") << unknown;
}

// The simulator's build is for 80-real and 90a-real.
TEST(Devices, EachSaysWhyItCannotBeUsed) {
  const auto before = std::exchange(simulator::gpus, {{7, 5}, {8, 6}, {9, 0}, {10, 3}});
  const std::vector<int> usable = usable_cuda_devices();
  const std::vector<std::string> lines = describe_cuda_devices();
  simulator::gpus = before;
  EXPECT_THAT(usable, ElementsAre(1, 2));
  EXPECT_THAT(lines,
              ElementsAre(EndsWith("compute capability 7.5, too old: 8.0 is needed"),
                          EndsWith("compute capability 8.6"), EndsWith("compute capability 9.0"),
                          EndsWith("compute capability 10.3, this build has kernels for 80-real 90a-real "
                                   "alone: build with -DCMAKE_CUDA_ARCHITECTURES=103")));
}

}  // namespace
}  // namespace flasheva
