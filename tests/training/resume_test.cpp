// Runs that stop and go on: every bit of the final model, and every line of metrics.jsonl but its speeds,
// must be those of the uninterrupted run, whatever happened in between.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <thread>

#include "src/io/checkpoint.h"
#include "tests/support/expect_error.h"
#include "tests/training/training_run.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const Overrides settings = {"model.attention.noise.enabled=true", "data.shuffle=true", "checkpoint.every=3",
                            "evaluate.every=5", "log.layers_every=4"};

Overrides with(const Overrides& more, Overrides overrides = settings) {
  overrides.insert(overrides.end(), more.begin(), more.end());
  return overrides;
}

class Resume : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    uninterrupted = std::make_unique<TrainingRun>();
    ASSERT_EQ(uninterrupted->train(validated(*uninterrupted)), TrainOutcome::finished);
    ASSERT_EQ(uninterrupted->column("loss").size(), 16u);
    ASSERT_EQ(uninterrupted->column("validation_loss").size(), 2u + 3u + 2u);
  }
  static void TearDownTestSuite() { uninterrupted.reset(); }

  static Overrides validated(const TrainingRun& run) {
    return with({"data.validation=" + run.tokens().string()});
  }

  static void expect_as_uninterrupted(const TrainingRun& run) {
    EXPECT_TRUE(run.final_model() == uninterrupted->final_model());
    EXPECT_EQ(run.metrics(), uninterrupted->metrics());
  }

  static std::unique_ptr<TrainingRun> uninterrupted;
};

std::unique_ptr<TrainingRun> Resume::uninterrupted;

void flip_bit(const fs::path& file, std::size_t byte, int bit) {
  std::string content = bytes_of(file);
  content.at(byte) = static_cast<char>(content[byte] ^ (1 << bit));
  FileWriter writer(file);
  writer.write(content);
  writer.close();
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const std::string& name : names_in(folder)) files[name] = bytes_of(folder / name);
  return files;
}

TEST_F(Resume, AfterASignalInAnyStep) {
  for (int step = 1; step < 16; ++step) {
    SCOPED_TRACE(step);
    TrainingRun run;
    ASSERT_EQ(run.train_until_signal(step, validated(run)), TrainOutcome::preempted);
    ASSERT_TRUE(fs::exists(run.checkpoint(step)));  // the step was ended, and nothing after it begun
    ASSERT_EQ(run.column("loss").size(), static_cast<std::size_t>(step));
    ASSERT_EQ(run.train(validated(run)), TrainOutcome::finished);
    expect_as_uninterrupted(run);
  }
}

TEST_F(Resume, ASignalInTheLastStepFinishesTheRun) {
  TrainingRun run;
  ASSERT_EQ(run.train_until_signal(16, validated(run)), TrainOutcome::finished);
  expect_as_uninterrupted(run);
}

TEST_F(Resume, AfterACrashInAnyStep) {
  for (int steps = 0; steps < 16; ++steps) {
    SCOPED_TRACE(steps);
    TrainingRun run;
    run.train_until_crash(steps, validated(run));
    ASSERT_EQ(run.column("loss").size(), static_cast<std::size_t>(steps));
    ASSERT_EQ(run.train(validated(run)), TrainOutcome::finished);
    expect_as_uninterrupted(run);
  }
}

TEST_F(Resume, AfterACrashInEveryStep) {
  TrainingRun run;
  for (int step = 1; step < 16; ++step)
    run.train_until_crash(1, with({"checkpoint.every=1"}, validated(run)));
  ASSERT_EQ(run.train(validated(run)), TrainOutcome::finished);
  expect_as_uninterrupted(run);
}

TEST_F(Resume, FromTheEndOfAPhase) {
  const Overrides rarely = {"checkpoint.every=1000"};
  TrainingRun run;
  run.train_until_crash(11, with(rarely, validated(run)));
  ASSERT_EQ(names_in(run.output() / "checkpoints"), std::set<std::string>{"step-000000008"});
  ASSERT_THAT(run.messages_of_training(with(rarely, validated(run))), HasSubstr("going on from"));
  expect_as_uninterrupted(run);
}

TEST_F(Resume, MetricsAreCutBackToTheCheckpoint) {
  TrainingRun run;
  run.train_until_crash(5, validated(run));
  ASSERT_EQ(run.column("loss").size(), 5u);
  run.train_until_crash(0, validated(run));  // goes on from step 4 and takes none
  EXPECT_EQ(run.column("loss").size(), 4u);
}

TEST_F(Resume, WhatMayDifferDoesNotStopIt) {
  TrainingRun run;
  run.train_until_crash(7, validated(run));
  EXPECT_EQ(run.train(with({"batch.micro=1", "checkpoint.every=4", "checkpoint.keep=2", "evaluate.batches=2",
                            "log.every=2"},
                           validated(run))),
            TrainOutcome::finished);
}

TEST_F(Resume, WithAnotherChoiceOfWhatIsRebuilt) {
  for (const char* recompute : {"batch.recompute=attention", "batch.recompute=block"}) {
    TrainingRun run;
    ASSERT_EQ(run.train_until_signal(5, validated(run)), TrainOutcome::preempted);
    ASSERT_EQ(run.train(with({recompute}, validated(run))), TrainOutcome::finished);
    expect_as_uninterrupted(run);
  }
}

TEST_F(Resume, AFinishedRunSaysSoAndChangesNothing) {
  TrainingRun run;
  run.train(validated(run));
  const std::string before = bytes_of(run.output() / "metrics.jsonl");
  EXPECT_THAT(run.messages_of_training(validated(run)), HasSubstr("finished after 16 steps"));
  EXPECT_EQ(run.train(validated(run)), TrainOutcome::already_finished);
  EXPECT_EQ(bytes_of(run.output() / "metrics.jsonl"), before);
  expect_as_uninterrupted(run);
}

// Killed after the last checkpoint, before the model was written: every file of it, also what tells of the
// losses.
TEST_F(Resume, AFinishedRunWithoutItsModelWritesIt) {
  TrainingRun run;
  run.train(validated(run));
  const std::map<std::string, std::string> before = files_of(run.output() / "model");
  ASSERT_THAT(before.at("training.json"), HasSubstr("\"validation_loss\""));
  fs::remove_all(run.output() / "model");
  EXPECT_EQ(run.train(validated(run)), TrainOutcome::already_finished);
  EXPECT_TRUE(files_of(run.output() / "model") == before);
  expect_as_uninterrupted(run);
}

TEST_F(Resume, AnotherConfigIsRefusedNamingTheKeyAndFresh) {
  TrainingRun run;
  run.train_until_crash(4, validated(run));
  const std::string before = bytes_of(run.output() / "metrics.jsonl");
  for (const auto& [override, key] :
       std::map<std::string, std::string>{{"phases.0.optimizer.lr=2e-2", "phases.0.optimizer.lr"},
                                          {"phases.1.steps=9", "phases.1.steps"},
                                          {"run.seed=9", "run.seed"},
                                          {"model.attention.window=16", "model.attention.window"},
                                          {"data.shuffle=false", "data.shuffle"}})
    expect_error(
        ExitCode::usage,
        "the earlier run had another " + key + "; use the same config, another run.output, or --fresh",
        [&] { run.train(with({override}, validated(run))); });
  EXPECT_EQ(bytes_of(run.output() / "metrics.jsonl"), before);
  EXPECT_EQ(run.train(validated(run)), TrainOutcome::finished);
  expect_as_uninterrupted(run);
}

TEST_F(Resume, FreshMovesTheEarlierRunAside) {
  TrainingRun run;
  run.train_until_crash(4, validated(run));
  const std::string before = bytes_of(run.output() / "metrics.jsonl");
  const std::string aside = run.output().string() + ".before-1";
  EXPECT_THAT(run.messages_of_training(validated(run), /*fresh=*/true),
              HasSubstr("the earlier run is now " + aside));
  EXPECT_EQ(bytes_of(fs::path(aside) / "metrics.jsonl"), before);
  EXPECT_TRUE(fs::exists(fs::path(aside) / "checkpoints" / "step-000000003"));
  expect_as_uninterrupted(run);

  EXPECT_EQ(run.train(with({"run.output=" + run.output().string() + "/"}, validated(run)), /*fresh=*/true),
            TrainOutcome::finished);
  EXPECT_EQ(bytes_of(fs::path(aside) / "metrics.jsonl"), before);
  EXPECT_TRUE(fs::exists(run.output().string() + ".before-2/model/config.json"));
  expect_as_uninterrupted(run);
}

TEST_F(Resume, TwoAtOnceAreRefused) {
  TrainingRun run;
  run.train_until_crash(4, validated(run));
  const std::string before = bytes_of(run.output() / "metrics.jsonl");
  {
    const FolderLock another(run.output(), "");
    const Overrides impatient = with({"distributed.timeout=0.01"}, validated(run));
    for (const bool fresh : {false, true})
      expect_error(ExitCode::data,
                   "run: another program is writing there now; wait for it, or choose another run.output",
                   [&] { run.train(impatient, fresh); });
  }
  EXPECT_EQ(bytes_of(run.output() / "metrics.jsonl"), before);
  EXPECT_EQ(run.train(validated(run)), TrainOutcome::finished);
  expect_as_uninterrupted(run);
}

TEST_F(Resume, WaitsForARunThatIsStillLeaving) {
  TrainingRun run;
  run.train_until_crash(4, validated(run));
  auto leaving = std::make_unique<FolderLock>(run.output(), "");
  std::thread leaves([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    leaving.reset();
  });
  EXPECT_EQ(run.train(validated(run)), TrainOutcome::finished);
  leaves.join();
  expect_as_uninterrupted(run);
}

TEST_F(Resume, FreshMovesNothingButARun) {
  TrainingRun run;
  fs::create_directories(run.output());
  EXPECT_EQ(run.train(validated(run), /*fresh=*/true), TrainOutcome::finished);  // there was nothing to move
  EXPECT_FALSE(fs::exists(run.output().string() + ".before-1"));
  fs::remove_all(run.output());
  fs::create_directories(run.output() / "thesis");
  expect_error(ExitCode::usage, "run: holds no run", [&] { run.train(validated(run), /*fresh=*/true); });
  EXPECT_TRUE(fs::exists(run.output() / "thesis"));
}

TEST_F(Resume, FreshWithABrokenConfigLeavesTheEarlierRun) {
  TrainingRun run;
  run.train_until_crash(4, validated(run));
  expect_error(ExitCode::data, "missing.h5",
               [&] { run.train(with({"data.train=missing.h5"}, validated(run)), /*fresh=*/true); });
  EXPECT_TRUE(fs::exists(run.checkpoint(3)));
}

TEST_F(Resume, AFlippedBitInAnyFileFallsBackToTheCheckpointBefore) {
  TrainingRun template_run;
  template_run.train_until_crash(6, validated(template_run));
  const std::set<std::string> files = names_in(template_run.checkpoint(6));
  for (const char* name : {"config.json", "manifest.json", "model.safetensors", "optimizer.safetensors",
                           "state.json", "modeling_flasheva_gpt_neox.py"})
    EXPECT_EQ(files.count(name), 1u) << name;
  for (const std::string& name : files) {
    SCOPED_TRACE(name);
    TrainingRun run;
    run.train_until_crash(6, validated(run));
    flip_bit(run.checkpoint(6) / name, fs::file_size(run.checkpoint(6) / name) / 2, 4);
    const std::string messages = run.messages_of_training(validated(run));
    EXPECT_THAT(messages, HasSubstr("warning: " + run.checkpoint(6).string() + ": "));
    EXPECT_THAT(messages, HasSubstr(name));
    EXPECT_THAT(messages, HasSubstr("going on from " + run.checkpoint(3).string() + "\n"));
    expect_as_uninterrupted(run);
  }
}

TEST_F(Resume, WithoutAnyValidCheckpointItStartsAnew) {
  TrainingRun run;
  run.train_until_crash(6, validated(run));
  for (const int step : {3, 6}) fs::remove(run.checkpoint(step) / "config.json");
  EXPECT_THAT(run.messages_of_training(validated(run)),
              testing::Not(testing::AnyOf(HasSubstr("going on"), HasSubstr("the checkpoint before"))));
  expect_as_uninterrupted(run);
}

// A damaged checkpoint of a later step must not count among those that are kept, nor be gone on from later.
TEST_F(Resume, ADamagedCheckpointDoesNotPushValidOnesOut) {
  TrainingRun run;
  run.train_until_crash(6, with({"checkpoint.keep=2"}, validated(run)));
  flip_bit(run.checkpoint(6) / "model.safetensors", 1000, 0);
  run.train_until_crash(2, with({"checkpoint.keep=2", "checkpoint.every=4"}, validated(run)));
  EXPECT_EQ(names_in(run.output() / "checkpoints"),
            (std::set<std::string>{"step-000000003", "step-000000004"}));
  run.train(validated(run));
  expect_as_uninterrupted(run);
}

TEST_F(Resume, AHalfWrittenCheckpointIsIgnoredAndRemoved) {
  TrainingRun run;
  run.train_until_crash(3, validated(run));
  const fs::path half = run.output() / "checkpoints" / "writing-step-000000005";
  fs::copy(run.checkpoint(3), half);
  fs::remove(half / "manifest.json");
  EXPECT_THAT(run.messages_of_training(validated(run)),
              HasSubstr("going on from " + run.checkpoint(3).string()));
  EXPECT_FALSE(fs::exists(half));
  expect_as_uninterrupted(run);
}

TEST_F(Resume, KeepsTheNewestCheckpoints) {
  TrainingRun run;
  run.train(with({"checkpoint.keep=2"}, validated(run)));
  EXPECT_EQ(names_in(run.output() / "checkpoints"),
            (std::set<std::string>{"step-000000015", "step-000000016"}));
}

// Halfway between two checkpoints; the run goes on from it as from any, and it goes with the next.
TEST_F(Resume, FromAnInterimCheckpoint) {
  TrainingRun run;
  run.train_until_crash(4, validated(run));
  EXPECT_EQ(names_in(run.output() / "checkpoints"),
            (std::set<std::string>{"step-000000003", "step-000000004"}));
  run.train_until_crash(2, validated(run));
  EXPECT_EQ(names_in(run.output() / "checkpoints"),
            (std::set<std::string>{"step-000000003", "step-000000006"}));
  run.train(validated(run));
  expect_as_uninterrupted(run);
}

// What stands in the way of the model folder shows before the work, not after it.
TEST_F(Resume, AFolderThatIsNoModelInPlaceOfTheModelIsRefusedAtOnce) {
  TrainingRun run;
  fs::create_directories(run.output() / "model" / "notes");
  expect_error(ExitCode::usage, "is not a model folder", [&] { run.train(validated(run)); });
  EXPECT_FALSE(fs::exists(run.output() / "checkpoints"));
}

}  // namespace
}  // namespace flasheva
