// How long a run waits for a rank that does nothing: for long where they have unlike work, and no longer than
// for a step where they have not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/training/ranks.h"

namespace flasheva {
namespace {

using testing::ElementsAre;

// Knows what patience each step is taken with.
class PatienceOfSteps final : public ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;
  void set_patience(double seconds, const std::string& during) override {
    now = seconds;
    if (all.empty() || all.back() != during) all.push_back(during);
  }
  // Once a step: the gradients of this model fit into one bucket.
  void start_all_reduce_sum(Tensor tensor, Tensor scratch, DType travel) override {
    in_steps.push_back(now);
    ForwardingCommunicator::start_all_reduce_sum(tensor, scratch, travel);
  }

  double now = 0;
  std::vector<double> in_steps;
  std::vector<std::string> all;  // what it was asked to wait during
};

// A validation, a checkpoint, an interim one and a comparison of weights are no reason to wait long in the
// step after them.
TEST(Patience, IsShortInEveryStepButAPhasesFirst) {
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
        EXPECT_EQ(patience.in_steps[step], 20 * 50) << step;
      } else {
        EXPECT_NEAR(patience.in_steps[step], 50 + 5, 5) << step;
      }
    }
    EXPECT_EQ(patience.now, 20 * 50);  // while the first rank writes the model
    ASSERT_GT(patience.all.size(), 8u);
    patience.all.resize(8);
    EXPECT_THAT(patience.all,
                ElementsAre("the start", "the beginning of phase attention_warmup", "validation",
                            "the first step of phase attention_warmup", "a step of phase attention_warmup",
                            every == 1 ? "validation" : "a checkpoint", "a step of phase attention_warmup",
                            every == 1 ? "a comparison of weights" : "validation"));
  }
}

}  // namespace
}  // namespace flasheva
