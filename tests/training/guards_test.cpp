// What a run does about losses and gradients that are not finite, and about losses that leap.
#include "src/training/guards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "kernels/timed_ops.h"
#include "tests/support/expect_error.h"
#include "tests/training/poisoned_ops.h"
#include "tests/training/training_run.h"

namespace flasheva {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// --- spikes --------------------------------------------------------------------------------------------

SpikeDetector with_losses_around(double mean, int count) {
  SpikeDetector spikes(64, 8);
  std::mt19937 random(1);
  std::normal_distribution<double> loss(mean, 0.1);
  for (int i = 0; i < count; ++i) spikes.remember(loss(random));
  return spikes;
}

TEST(SpikeDetector, TellsALeapFromNoise) {
  const SpikeDetector spikes = with_losses_around(3, 64);
  EXPECT_FALSE(spikes.is_spike(3.3));
  EXPECT_FALSE(spikes.is_spike(1));  // falls are welcome
  EXPECT_TRUE(spikes.is_spike(4.2));
  EXPECT_NEAR(spikes.score(4), 10, 3);
}

TEST(SpikeDetector, WaitsForHalfItsWindow) {
  EXPECT_FALSE(with_losses_around(3, 31).is_spike(100));
  EXPECT_TRUE(with_losses_around(3, 32).is_spike(100));
}

TEST(SpikeDetector, IsNotMovedByOutliers) {
  SpikeDetector spikes = with_losses_around(3, 64);
  for (int i = 0; i < 20; ++i) spikes.remember(1e6);
  EXPECT_TRUE(spikes.is_spike(5));
  EXPECT_FALSE(spikes.is_spike(3.2));
}

TEST(SpikeDetector, IsImmuneToWhatIsNotFinite) {
  SpikeDetector spikes = with_losses_around(3, 64);
  const double before = spikes.score(3.5);
  for (const double loss : {nan, HUGE_VAL, -HUGE_VAL}) {
    EXPECT_EQ(spikes.score(loss), 0);
    spikes.remember(loss);
  }
  EXPECT_EQ(spikes.score(3.5), before);
}

TEST(SpikeDetector, ForgetsWhatHasLeftItsWindow) {
  SpikeDetector spikes = with_losses_around(3, 64);
  for (int i = 0; i < 64; ++i) spikes.remember(10 + 0.1 * (i % 3));
  EXPECT_FALSE(spikes.is_spike(10.3));
}

TEST(SpikeDetector, EqualLossesMakeNoSpikeOfATinyStep) {
  SpikeDetector spikes(16, 8);
  for (int i = 0; i < 16; ++i) spikes.remember(2);
  EXPECT_FALSE(spikes.is_spike(2.01));
  EXPECT_TRUE(spikes.is_spike(2.1));
}

// --- whole runs ----------------------------------------------------------------------------------------

constexpr int layers = 3, micro_batches = 2;

class GuardedRun : public testing::Test {
 protected:
  // Trains with one value that is not finite.
  void train(Ops& ops, const Overrides& overrides = {}) {
    flasheva::train(run.config(overrides), ops, *make_single_communicator(), false);
  }
  std::vector<nlohmann::ordered_json> warnings() const {
    std::vector<nlohmann::ordered_json> found;
    for (const auto& entry : run.metrics())
      if (entry.contains("warning")) found.push_back(entry);
    return found;
  }
  std::string weights_after(int step) const { return bytes_of(run.checkpoint(step) / "model.safetensors"); }
  std::string moments_after(int step) const {
    return bytes_of(run.checkpoint(step) / "optimizer.safetensors");
  }

  TrainingRun run;
  std::unique_ptr<Ops> ops = make_cpu_ops();
  const Overrides keep_all = {"checkpoint.every=1", "checkpoint.keep=100"};
};

TEST_F(GuardedRun, AStepThatIsNotFiniteChangesNothingAndNamesTheLayer) {
  // The third step, second micro batch, layer 1.
  PoisonedOps poisoned(*ops, 2 * layers * micro_batches + layers + 1, never);
  train(poisoned, keep_all);
  EXPECT_TRUE(weights_after(3) == weights_after(2));
  EXPECT_TRUE(moments_after(3) == moments_after(2));
  EXPECT_FALSE(weights_after(4) == weights_after(3));
  ASSERT_EQ(warnings().size(), 1u);
  EXPECT_EQ(warnings()[0]["step"], 3);
  EXPECT_EQ(warnings()[0]["updated"], false);
  EXPECT_EQ(warnings()[0]["skipped_in_phase"], 1);
  EXPECT_THAT(warnings()[0]["warning"].get<std::string>(), HasSubstr("not finite: layer 1, forward"));
}

TEST_F(GuardedRun, NamesTheGradientWhereTheForwardPassWasFinite) {
  // In the first phase attention alone is trained; the last layer's dense comes first.
  PoisonedOps poisoned(*ops, never, 0);
  train(poisoned, keep_all);
  ASSERT_EQ(warnings().size(), 1u);
  EXPECT_EQ(warnings()[0]["step"], 1);
  EXPECT_THAT(warnings()[0]["warning"].get<std::string>(),
              HasSubstr("gradient of gpt_neox.layers.2.attention.dense.weight, backward"));
}

TEST_F(GuardedRun, SkippedStepsDoNotCountForTheMomentsBias) {
  PoisonedOps poisoned(*ops, 0, never);
  train(poisoned, {"phases.0.steps=2", "phases.1.steps=1", "checkpoint.every=1"});
  const nlohmann::json state = nlohmann::json::parse(bytes_of(run.checkpoint(2) / "state.json"));
  EXPECT_EQ(state["skipped_in_phase"], 1);
  EXPECT_EQ(state["step_in_phase"], 2);
}

TEST_F(GuardedRun, NamesTheLayerWhoseActivationsAreRebuilt) {
  for (const char* recompute : {"attention", "block"}) {
    PoisonedOps poisoned(*ops, layers + 1, never);  // the first step, second micro batch, layer 1
    flasheva::train(
        run.config({fmt::format("batch.recompute={}", recompute), "phases.0.steps=1", "phases.1.steps=1"}),
        poisoned, *make_single_communicator(), true);
    ASSERT_EQ(warnings().size(), 1u) << recompute;
    EXPECT_THAT(warnings()[0]["warning"].get<std::string>(), HasSubstr("not finite: layer 1, forward"));
  }
}

TEST_F(GuardedRun, TooManySkipsInARowEndTheRun) {
  PoisonedOps poisoned(*ops, 2 * layers * micro_batches, never, 1000);
  expect_error(
      ExitCode::numeric,
      "phase attention_warmup, step 5: loss nan, the first value that is not finite: layer 0, forward; 3 "
      "steps in a row changed nothing (guards.max_skips 2)",
      [&] { train(poisoned, {"guards.max_skips=2"}); });
}

TEST_F(GuardedRun, AResumedRunRemembersWhatItSkipped) {
  const auto poisoned = [&] { return PoisonedOps(*ops, layers * micro_batches, never); };
  PoisonedOps whole = poisoned(), first = poisoned();
  TrainingRun uninterrupted;
  flasheva::train(uninterrupted.config(keep_all), whole, *make_single_communicator(), false);
  Interrupter interrupter(Interrupter::By::signal, 4);
  EXPECT_EQ(flasheva::train(run.config(keep_all), first, interrupter, false), TrainOutcome::preempted);
  train(*ops, keep_all);
  EXPECT_TRUE(run.final_model() == uninterrupted.final_model());
}

TEST_F(GuardedRun, AResumedRunCountsItsSkipsOn) {
  const Overrides settings = {"checkpoint.every=1", "guards.max_skips=2"};
  const int from_third_step = 2 * layers * micro_batches;
  PoisonedOps first(*ops, from_third_step, never, 1000), rest(*ops, 0, never, 1000);
  Interrupter interrupter(Interrupter::By::signal, 3);
  EXPECT_EQ(flasheva::train(run.config(settings), first, interrupter, false), TrainOutcome::preempted);
  ASSERT_TRUE(std::filesystem::exists(run.checkpoint(4)));
  expect_error(ExitCode::numeric, "step 5: loss nan, the first value that is not finite: layer 0, forward; 3",
               [&] { train(rest, settings); });
}

// As an earlier version wrote it.
void forget_guards(const std::filesystem::path& checkpoint) {
  nlohmann::json state = nlohmann::json::parse(bytes_of(checkpoint / "state.json"));
  ASSERT_EQ(state.erase("guards"), 1u);
  write_file_atomically(checkpoint / "state.json", state.dump(1) + "\n");
  nlohmann::json manifest = nlohmann::json::parse(bytes_of(checkpoint / "manifest.json"));
  manifest["files"]["state.json"] = {{"bytes", std::filesystem::file_size(checkpoint / "state.json")},
                                     {"xxh3_128", checksum_of_file(checkpoint / "state.json")}};
  write_file_atomically(checkpoint / "manifest.json", manifest.dump(1) + "\n");
}

TEST_F(GuardedRun, GoesOnFromACheckpointThatSaysNothingOfTheGuards) {
  Interrupter interrupter(Interrupter::By::signal, 3);
  flasheva::train(run.config(), *ops, interrupter, false);
  forget_guards(run.checkpoint(4));
  EXPECT_THAT(run.messages_of_training({}), HasSubstr("going on from " + run.checkpoint(4).string()));
  TrainingRun uninterrupted;
  uninterrupted.train();
  EXPECT_TRUE(run.final_model() == uninterrupted.final_model());
}

// --- leaps ---------------------------------------------------------------------------------------------

// A judged step whose loss leaps, after 64 around 3.
class LeapingLoss : public testing::TestWithParam<SpikeAction> {};

TEST_P(LeapingLoss, IsLoggedSkippedOrRolledBack) {
  GuardsSection config;
  config.spike_action = GetParam();
  config.spike_window = 64;
  const auto communicator = make_single_communicator();
  Guards guards(config, *communicator);
  const auto step = [&](double loss) {
    StepResult result;
    result.loss = loss;
    result.updated = guards.accepts(result);
    return std::pair(result.updated, guards.judge(result, "here"));
  };
  for (int i = 0; i < 64; ++i) EXPECT_EQ(step(3 + 0.1 * (i % 5)), std::pair(true, std::string()));
  const auto [updated, said] = step(30);
  EXPECT_EQ(updated, GetParam() == SpikeAction::log);
  EXPECT_THAT(said, HasSubstr("loss 30.0000 leaps by "));
  EXPECT_EQ(guards.wants_roll_back(), GetParam() == SpikeAction::rollback);
  EXPECT_EQ(step(3), std::pair(true, std::string()));
  EXPECT_FALSE(guards.wants_roll_back());
}
INSTANTIATE_TEST_SUITE_P(Actions, LeapingLoss,
                         testing::Values(SpikeAction::log, SpikeAction::skip, SpikeAction::rollback),
                         [](const auto& test) { return std::string(to_string(test.param)); });

// The losses of one step are ten times what they are.
class LeapingOps final : public TimedOps {
 public:
  LeapingOps(Ops& ops, int step) : TimedOps(ops), step_(step) {}
  void cross_entropy_backward(Tensor logits, Tensor losses, Tensor targets, Tensor mask,
                              Tensor scale) override {
    TimedOps::cross_entropy_backward(logits, losses, targets, mask, scale);
    if (calls_++ / micro_batches != step_ - 1) return;
    for (std::int64_t i = 0; i < losses.size(); ++i) losses.as<float>()[i] *= 10;
  }

 private:
  const int step_;
  int calls_ = 0;
};

TEST_F(GuardedRun, RollsBackToTheCheckpointAndLeavesTheBatchesOut) {
  LeapingOps leap(*ops, 14);
  train(leap, {"phases.0.steps=20", "phases.0.optimizer.lr=1e-4", "phases.1.steps=1", "checkpoint.every=5",
               "guards={spike_action: rollback, spike_window: 16, spike_threshold: 8}"});
  ASSERT_EQ(warnings().size(), 1u);
  EXPECT_EQ(warnings()[0]["step"], 14);
  std::vector<std::int64_t> back, steps;
  for (const auto& entry : run.metrics()) {
    if (entry.contains("rolled_back_to_step")) back.push_back(entry["rolled_back_to_step"]);
    if (entry.contains("loss")) steps.push_back(entry["run_step"]);
  }
  EXPECT_THAT(back, ElementsAre(12));
  EXPECT_EQ(steps.size(), 13u + 9u);  // 1 .. 13, then 13 .. 21
  EXPECT_EQ(steps[13], 13);
  const nlohmann::json state = nlohmann::json::parse(bytes_of(run.checkpoint(21) / "state.json"));
  EXPECT_EQ(state["passed_over"], 2);
}

// The 14th step leaps; the run had died in the 11th and goes on from the 10th's checkpoint, had died in the
// 14th and goes on from the interim one of the 12th.
TEST_F(GuardedRun, AResumedRunKnowsTheLossesByWhichALeapIsJudged) {
  for (const char* action : {"skip", "rollback"})
    for (const int taken : {10, 13}) {
      SCOPED_TRACE(fmt::format("{}, dead after {} steps", action, taken));
      const Overrides settings = {
          "phases.0.steps=20", "phases.0.optimizer.lr=1e-4", "phases.1.steps=1", "checkpoint.every=5",
          fmt::format("guards={{spike_action: {}, spike_window: 16, spike_threshold: 8}}", action)};
      TrainingRun uninterrupted, resumed;
      LeapingOps whole(*ops, 14), first(*ops, 14), rest(*ops, taken == 10 ? 4 : 2);
      flasheva::train(uninterrupted.config(settings), whole, *make_single_communicator(), false);
      Interrupter interrupter(Interrupter::By::crash, taken);
      EXPECT_THROW(flasheva::train(resumed.config(settings), first, interrupter, false), Interrupter::Crash);
      flasheva::train(resumed.config(settings), rest, *make_single_communicator(), false);
      EXPECT_TRUE(resumed.final_model() == uninterrupted.final_model());
      EXPECT_EQ(resumed.metrics(), uninterrupted.metrics());
    }
}

}  // namespace
}  // namespace flasheva
