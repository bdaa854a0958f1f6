// Runs of several ranks, seen from inside: mpirun starts this program several times, and all of them run the
// same tests together.
#include "tests/training/ranks.h"

#include <gtest/gtest.h>

namespace flasheva {

Communicator* ranks = nullptr;

namespace {

// Sums of tensors that travel as bfloat16, written plainly: all is rounded before, and after where it travels
// back.
class RoundedByHand final : public ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;
  void start_all_reduce_sum(Tensor tensor, Tensor scratch, DType) override {
    round(tensor);
    ForwardingCommunicator::start_all_reduce_sum(tensor, scratch, DType::f32);
    wait();
    round(tensor);
  }
  void start_reduce_scatter_sum(Tensor tensor, Tensor scratch, DType) override {
    round(tensor);
    ForwardingCommunicator::start_reduce_scatter_sum(tensor, scratch, DType::f32);
    wait();
  }

 private:
  static void round(Tensor tensor) {
    for (std::int64_t i = 0; i < tensor.size(); ++i)
      tensor.as<float>()[i] = static_cast<float>(bf16(tensor.as<float>()[i]));
  }
};

TEST(TrainWithRanks, GradientsThatTravelAsBfloat16AreThoseRoundedByHand) {
  if (ranks->size() == 1) GTEST_SKIP() << "nothing travels";
  for (const char* sharded : {"false", "true"}) {
    const Overrides exact_settings = {std::string("distributed.shard_optimizer=") + sharded,
                                      "guards.weights_every=1"};
    const Overrides settings = plus(exact_settings, {"distributed.reduce_dtype=bf16"});
    SharedRun exact(*ranks), rounded(*ranks), by_hand(*ranks);
    RoundedByHand plainly(*ranks);
    exact.train_with(*ranks, exact_settings);
    rounded.train_with(*ranks, settings);
    by_hand.train_with(plainly, settings);
    if (ranks->rank() != 0) continue;
    EXPECT_TRUE(rounded.final_model() == by_hand.final_model()) << sharded;
    EXPECT_EQ(rounded.metrics(), by_hand.metrics()) << sharded;
    const std::vector<double> losses = rounded.column("loss"), reference = exact.column("loss");
    EXPECT_EQ(losses[0], reference[0]) << sharded;  // of the weights before any update
    EXPECT_NE(losses[1], reference[1]) << sharded;
  }
}

}  // namespace
}  // namespace flasheva

int main(int argc, char** argv) { return flasheva::run_tests_with_ranks(argc, argv); }
