// Runs of several ranks, seen from inside: mpirun starts this program several times, and all of them run the
// same tests together.
#include "tests/training/ranks.h"

#include <gtest/gtest.h>

#include "kernels/timed_ops.h"
#include "src/io/hdf5_handle.h"
#include "src/training/trainer.h"
#include "tests/support/expect_error.h"

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
  for (const char* sharded : {"{}", "{shard_optimizer: true}", "{shard_gradients: true}"}) {
    const Overrides exact_settings = {std::string("distributed=") + sharded, "guards.weights_every=1"};
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

std::size_t planned_bytes(const MemoryPlan& plan, const std::string& category) {
  for (const MemoryPlan::Category& known : plan.categories())
    if (known.name == category) return known.bytes;
  return 0;
}

// What a rank takes for gradients: its share, the embedding's or the head's, and two layers'.
TEST(TrainWithRanks, GradientsInSharesTakeTheMemoryOfTheirShareAndFewLayers) {
  SharedRun run(*ranks);
  const auto plan_of = [&](const Overrides& overrides) {
    const Config config = run.config(overrides);
    return Trainer::plans(config, resolve_model(config), Device::cpu, ranks->rank(), ranks->size())[1].memory;
  };
  const MemoryPlan whole = plan_of({}), shares = plan_of({"distributed.shard_gradients=true"});
  ModelConfig model = resolve_model(run.config());
  ParameterTable parameters(model);
  parameters.select({"all"});
  const auto elements = [&](int layer) {
    return parameters.gradient_elements_before(layer + 1) - parameters.gradient_elements_before(layer);
  };
  const std::int64_t all = parameters.gradient_elements(), layers = model.num_hidden_layers;
  ASSERT_EQ(planned_bytes(whole, "gradients"), static_cast<std::size_t>(4 * all));
  if (ranks->size() == 1) {
    EXPECT_EQ(shares.bytes(), whole.bytes());
    return;
  }
  const std::int64_t head = all - parameters.gradient_elements_before(static_cast<int>(layers));
  std::int64_t largest = 0;
  for (int layer = 0; layer < layers; ++layer) largest = std::max(largest, elements(layer));
  EXPECT_LE(planned_bytes(shares, "gradients under way"),
            static_cast<std::size_t>(4 * (std::max(head, elements(-1)) + 2 * largest)));
  // Pieces of tensors, each on a line of its own.
  const auto tensors = static_cast<std::int64_t>(parameters.all().size());
  EXPECT_NEAR(static_cast<double>(planned_bytes(shares, "gradients")),
              4.0 * static_cast<double>(all) / ranks->size(), 64.0 * static_cast<double>(2 * tensors));
}

// With one micro batch the sums are those of whole gradients, bit for bit, and so are the weights without
// clipping.
TEST(TrainWithRanks, GradientsInSharesAreThoseOfOneSumBitForBit) {
  for (const char* train : {"phases.0.train=[attention]", "phases.0.train=['*.1.*', embed_out.*]",
                            "phases.0.train=['*embed_in*', '*.2.mlp.*']"}) {
    const Overrides settings = {train, "batch.micro=4", "phases.0.optimizer.clip=0",
                                "phases.1.optimizer.clip=0", "guards.weights_every=1"};
    SharedRun whole(*ranks), shares(*ranks);
    whole.train_with(*ranks, settings);
    shares.train_with(*ranks, plus(settings, {"distributed.shard_gradients=true"}));
    if (ranks->rank() != 0) continue;
    EXPECT_TRUE(shares.final_model() == whole.final_model()) << train;
    EXPECT_EQ(shares.column("loss"), whole.column("loss")) << train;
  }
}

// A token that no vocabulary has, in the sequence that the last rank validates last.
TEST(TrainWithRanks, DamagedValidationDataOfOneRankEndsAllWithOneLine) {
  SharedRun run(*ranks);
  if (ranks->rank() == 0) {
    const Hdf5Handle file(H5Fopen(run.tokens().c_str(), H5F_ACC_RDWR, H5P_DEFAULT));
    const Hdf5Handle set(H5Dopen2(file, "/tokens", H5P_DEFAULT)), space(H5Dget_space(set));
    const hsize_t place = 40 * 24 + 5, one = 1;
    const std::uint16_t token = 60000;
    const Hdf5Handle memory(H5Screate_simple(1, &one, nullptr));
    H5Sselect_hyperslab(space, H5S_SELECT_SET, &place, nullptr, &one, nullptr);
    ASSERT_GE(H5Dwrite(set, H5T_NATIVE_UINT16, memory, space, H5P_DEFAULT, &token), 0);
  }
  from_first_rank(*ranks, 0);  // it is there
  const Overrides settings = {"data.validation=" + run.tokens().string(), "evaluate.batches=100"};
  const bool last = ranks->rank() == ranks->size() - 1;
  expect_error(ExitCode::data, last ? "60000" : "", [&] { run.train_with(*ranks, settings); });
}

// Computes as the CPU does, but has no host memory for the second phase.
class ShortOfMemory final : public TimedOps {
 public:
  using TimedOps::TimedOps;
  DeviceMemory allocate_on_host(std::size_t bytes) override {
    if (++phases_ == 2) fail(ExitCode::other, "no memory for this phase");
    return TimedOps::allocate_on_host(bytes);
  }

 private:
  int phases_ = 0;
};

TEST(TrainWithRanks, MemoryThatTheFirstRankLacksForAPhaseEndsAllWithOneLine) {
  const auto ops = make_cpu_ops();
  ShortOfMemory short_of_memory(*ops);
  const bool first = ranks->rank() == 0;
  SharedRun run(*ranks);
  try {
    run.train_with(*ranks, {}, first ? &short_of_memory : ops.get());
    FAIL() << "no error";
  } catch (const SharedError& error) {
    EXPECT_EQ(error.code(), ExitCode::other);
    EXPECT_EQ(error.what(), first ? "no memory for this phase" : std::string());
  }
}

}  // namespace
}  // namespace flasheva

int main(int argc, char** argv) { return flasheva::run_tests_with_ranks(argc, argv); }
