// How long a run waits for other ranks: as long as it takes where they have unlike work, and no longer than
// for a step where they have not.
#include <gtest/gtest.h>

#include <vector>

#include "tests/training/ranks.h"

namespace flasheva {
namespace {

// Knows what patience each step is taken with.
class PatienceOfSteps final : public ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;
  void set_patience(double seconds) override { now = seconds; }
  // Once a step: the gradients of this model fit into one bucket.
  void start_all_reduce_sum(Tensor tensor, Tensor scratch, DType travel) override {
    in_steps.push_back(now);
    ForwardingCommunicator::start_all_reduce_sum(tensor, scratch, travel);
  }

  double now = endless;
  std::vector<double> in_steps;
};

// A validation, a checkpoint, an interim one and a comparison of weights are no reason to wait without end in
// the step after them.
TEST(Patience, EndsInEveryStepButAPhasesFirst) {
  for (const int every : {1, 3}) {
    SCOPED_TRACE(every);
    const auto alone = make_single_communicator();
    PatienceOfSteps patience(*alone);
    TrainingRun run;
    ASSERT_EQ(run.train_with(patience, {"data.validation=" + run.tokens().string(), "distributed.timeout=50",
                                        fmt::format("checkpoint.every={}", every),
                                        fmt::format("evaluate.every={}", every),
                                        fmt::format("guards.weights_every={}", every)}),
              TrainOutcome::finished);
    ASSERT_EQ(patience.in_steps.size(), 16u);
    for (std::size_t step = 0; step < 16; ++step) {
      if (step == 0 || step == 8) {
        EXPECT_EQ(patience.in_steps[step], Communicator::endless) << step;
      } else {
        EXPECT_NEAR(patience.in_steps[step], 50 + 5, 5) << step;
      }
    }
    EXPECT_EQ(patience.now, Communicator::endless);  // while the first rank writes the model
  }
}

}  // namespace
}  // namespace flasheva
