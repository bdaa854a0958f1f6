// Loss scaling in float16: the scale's own rules, and what a run does about gradients that overflow.
#include "src/training/loss_scaler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/expect_error.h"
#include "tests/training/training_run.h"

namespace flasheva {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

LossScaler scaler_of(double initial, std::int64_t growth_interval, std::int64_t hysteresis,
                     double minimum = 1) {
  LossScaleConfig config;
  config.initial = initial, config.minimum = minimum;
  config.growth_interval = growth_interval, config.hysteresis = hysteresis;
  return LossScaler(config);
}

TEST(LossScaler, DoublesAfterAnIntervalOfFiniteGradients) {
  LossScaler scaler = scaler_of(8, 3, 1);
  std::vector<double> scales;
  for (int step = 0; step < 7; ++step) {
    scaler.finite();
    scales.push_back(scaler.scale());
  }
  EXPECT_THAT(scales, ElementsAre(8, 8, 16, 16, 16, 32, 32));
}

TEST(LossScaler, AnOverflowHalvesAndBeginsTheIntervalAgain) {
  LossScaler scaler = scaler_of(8, 3, 1);
  scaler.finite(), scaler.finite();
  EXPECT_TRUE(scaler.overflow());
  EXPECT_EQ(scaler.scale(), 4);
  scaler.finite(), scaler.finite();
  EXPECT_EQ(scaler.scale(), 4);
  scaler.finite();
  EXPECT_EQ(scaler.scale(), 8);
}

TEST(LossScaler, ToleratesOverflowsUpToTheHysteresis) {
  LossScaler scaler = scaler_of(64, 2, 3);
  scaler.overflow();
  scaler.finite();  // overflows need not be in a row
  scaler.overflow();
  EXPECT_EQ(scaler.scale(), 64);
  scaler.overflow();
  EXPECT_EQ(scaler.scale(), 32);
  scaler.overflow();  // from then on each counts
  EXPECT_EQ(scaler.scale(), 16);
  scaler.finite(), scaler.finite();  // a doubling forgives them
  EXPECT_EQ(scaler.scale(), 32);
  scaler.overflow(), scaler.overflow();
  EXPECT_EQ(scaler.scale(), 32);
  scaler.overflow();
  EXPECT_EQ(scaler.scale(), 16);
}

TEST(LossScaler, DoesNotFallBelowTheMinimum) {
  LossScaler scaler = scaler_of(8, 100, 2, 4);
  EXPECT_TRUE(scaler.overflow());
  EXPECT_TRUE(scaler.overflow());
  EXPECT_EQ(scaler.scale(), 4);
  EXPECT_FALSE(scaler.overflow());
  EXPECT_EQ(scaler.scale(), 4);
}

TEST(LossScaler, StaysAPowerOfTwoWithinItsBounds) {
  LossScaler scaler = scaler_of(LossScaleConfig::largest / 4, 1, 1);
  for (int step = 0; step < 5; ++step) scaler.finite();
  EXPECT_EQ(scaler.scale(), LossScaleConfig::largest);
  int exponent = 0;
  while (scaler.overflow()) EXPECT_EQ(std::frexp(scaler.scale(), &exponent), 0.5);
  EXPECT_EQ(scaler.scale(), 1);
}

TEST(LossScaler, GoesOnFromItsState) {
  LossScaler whole = scaler_of(64, 3, 2), parts = whole;
  whole.overflow(), whole.finite(), whole.finite();
  parts.restore(whole.state());
  for (LossScaler* scaler : {&whole, &parts}) scaler->finite();
  EXPECT_EQ(parts.scale(), 128);
  EXPECT_EQ(parts.scale(), whole.scale());
}

// --- whole runs --------------------------------------------------------------------------------

// The fixture's batches have 96 targets: gradients of logits reach scale / 96, which float16 holds up to a
// scale of 2^22.
constexpr double scale_that_overflows = 1 << 24;

Overrides float16_with(const std::string& loss_scale, const Overrides& more = {}) {
  Overrides overrides = {"phases.0.precision=fp16", "phases.1.precision=fp16",
                         "phases.0.loss_scale=" + loss_scale, "phases.1.loss_scale=" + loss_scale};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return overrides;
}

std::vector<std::string> warnings_of(const TrainingRun& run) {
  std::vector<std::string> found;
  for (const auto& entry : run.metrics())
    if (entry.contains("warning")) found.push_back(entry["warning"]);
  return found;
}

TEST(LossScaledRun, AnOverflowLowersTheScaleAndTheRunGoesOn) {
  TrainingRun run;
  ASSERT_EQ(run.train(float16_with("{initial: 16777216, hysteresis: 2}",
                                   {"guards.max_skips=0", "checkpoint.every=1", "checkpoint.keep=100"})),
            TrainOutcome::finished);
  const std::vector<std::string> warnings = warnings_of(run);
  ASSERT_GE(warnings.size(), 4u);  // two of each phase at least
  EXPECT_EQ(warnings[0], "gradients overflow at loss scale 16777216; skipped, scale stays 16777216");
  EXPECT_EQ(warnings[1], "gradients overflow at loss scale 16777216; skipped, scale now 8388608");
  const std::vector<double> scales = run.column("loss_scale");
  ASSERT_EQ(scales.size(), 16u);
  EXPECT_EQ(scales[0], scale_that_overflows);
  EXPECT_EQ(scales[1], scale_that_overflows);
  EXPECT_EQ(scales[2], scale_that_overflows / 2);
  EXPECT_LT(scales[7], scale_that_overflows / 2);
  EXPECT_EQ(scales[8], scale_that_overflows) << "a phase begins with its own scale";
  const auto weights = [&](int step) { return bytes_of(run.checkpoint(step) / "model.safetensors"); };
  EXPECT_TRUE(weights(1) == weights(2));
  EXPECT_FALSE(weights(7) == weights(8));
}

TEST(LossScaledRun, AnOverflowAtTheMinimumEndsTheRunAndNamesTheTensor) {
  TrainingRun run;
  expect_error(ExitCode::numeric,
               "phase attention_warmup, step 2: gradients overflow at loss scale 16777216, the lowest that "
               "loss_scale.minimum allows; the first that is not finite: "
               "gpt_neox.layers.2.attention.",
               [&] { run.train(float16_with("{initial: 16777216, minimum: 16777216}")); });
}

TEST(LossScaledRun, TheScaleGrowsAndIsLogged) {
  TrainingRun run;
  run.train(float16_with("{initial: 1024, growth_interval: 3}"));
  const std::vector<double> scales = run.column("loss_scale");
  ASSERT_EQ(scales.size(), 16u);
  EXPECT_THAT(std::vector(scales.begin(), scales.begin() + 8),
              ElementsAre(1024, 1024, 1024, 2048, 2048, 2048, 4096, 4096));
}

// In the middle of an interval, between overflows, and behind them.
TEST(LossScaledRun, ResumesBitwiseAfterEveryStep) {
  const Overrides settings =
      float16_with("{initial: 8388608, growth_interval: 3, hysteresis: 2}", {"checkpoint.every=1"});
  TrainingRun whole;
  ASSERT_EQ(whole.train(settings), TrainOutcome::finished);
  ASSERT_FALSE(warnings_of(whole).empty());
  for (int step = 1; step < 16; ++step) {
    SCOPED_TRACE(step);
    TrainingRun parts;
    parts.train_until_crash(step, settings);
    ASSERT_EQ(parts.train(settings), TrainOutcome::finished);
    EXPECT_TRUE(parts.final_model() == whole.final_model());
    EXPECT_EQ(parts.metrics(), whole.metrics());
  }
}

}  // namespace
}  // namespace flasheva
