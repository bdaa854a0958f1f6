// Runs the tests on a GPU; says how many are skipped where there is none, and exits 77, which CTest knows.
#include <gtest/gtest.h>

#include <cstdio>

#include "kernels/cuda/devices.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (!flasheva::usable_cuda_devices().empty()) return RUN_ALL_TESTS();
  std::printf("skipped %d tests: %s\n", testing::UnitTest::GetInstance()->total_test_count(),
              flasheva::describe_cuda_devices().at(0).c_str());
  return 77;
}
