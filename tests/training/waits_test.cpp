// How often the host waits for the GPU while it trains, which the simulator counts.
#include <gtest/gtest.h>

#include "tests/cuda_simulator/simulator.h"
#include "tests/support/test_ops.h"
#include "tests/training/training_run.h"

namespace flasheva {
namespace {

class WaitCounter final : public WatchedRank {
 public:
  void step_ends() override { waits.push_back(simulator::host_waits); }
  std::vector<int> waits;
};

// In each step but the first ones of a phase, which choose algorithms of products.
std::vector<int> waits_of_steps(int micro) {
  TrainingRun run(make_device_ops());
  WaitCounter counter;
  run.train_with(counter, {"phases.0.steps=6", "phases.1.steps=1", "batch.sequences=4",
                           fmt::format("batch.micro={}", micro)});
  std::vector<int> waits;
  for (std::size_t step = 3; step < 6; ++step)
    waits.push_back(counter.waits.at(step) - counter.waits.at(step - 1));
  return waits;
}

TEST(HostWaits, AreAsManyForAnyNumberOfMicroBatches) {
  const std::vector<int> of_one = waits_of_steps(4);
  EXPECT_EQ(waits_of_steps(2), of_one);
  EXPECT_EQ(waits_of_steps(1), of_one);
}

}  // namespace
}  // namespace flasheva
