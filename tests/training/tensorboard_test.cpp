// TensorBoard's file says what metrics.jsonl says, whatever happened to the run.
#include "src/training/tensorboard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/event_reader.h"
#include "tests/support/expect_error.h"
#include "tests/training/training_run.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

// Those that are not empty.
std::vector<fs::path> event_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().filename().string().starts_with("events.out.tfevents.") && entry.file_size() > 0)
      files.push_back(entry.path());
  return files;
}

// The events of the one file that there is.
std::vector<ReadEvent> events_in(const fs::path& folder) {
  const std::vector<fs::path> files = event_files(folder);
  EXPECT_EQ(files.size(), 1u);
  return files.empty() ? std::vector<ReadEvent>() : read_event_file(files[0]);
}

// (step, value) of a scalar, in the order of the file; a session's start drops what a reader would.
std::vector<std::pair<std::int64_t, float>> series(const std::vector<ReadEvent>& events,
                                                   const std::string& tag) {
  std::vector<std::pair<std::int64_t, float>> points;
  for (const ReadEvent& event : events) {
    if (event.session_status == 1)
      std::erase_if(points, [&](const auto& point) { return point.first >= event.step; });
    if (const auto found = event.scalars.find(tag); found != event.scalars.end())
      points.emplace_back(event.step, found->second);
  }
  return points;
}

// The same of a key of metrics.jsonl.
std::vector<std::pair<std::int64_t, float>> series(const TrainingRun& run, const std::string& key) {
  std::vector<std::pair<std::int64_t, float>> points;
  for (const auto& entry : run.metrics())
    if (entry.contains(key)) points.emplace_back(entry["run_step"], entry[key].get<float>());
  return points;
}

TEST(TensorboardLog, MakesAScalarOfEveryNumber) {
  const TemporaryFolder folder;
  TensorboardLog log(folder.path(), "what it is");
  log.write({{"phase", "warmup"},
             {"step", 1},
             {"run_step", 7},
             {"loss", 2.5},
             {"updated", true},
             {"skipped_in_phase", 3},
             {"bits", nullptr},
             {"time", 12.5}});
  log.write({{"run_step", 8}, {"grad_norm_by_part", {{"embed_in", 1.0}, {"layers.10", 2.0}}}});
  log.write({{"run_step", 9}, {"attention_error", {nullptr, 0.25}}});
  const std::vector<ReadEvent> events = events_in(folder.path());
  ASSERT_EQ(events.size(), 6u);
  EXPECT_EQ(events[1].session_status, 1);
  EXPECT_THAT(events[2].texts, ElementsAre(Pair("run", "what it is")));
  EXPECT_THAT(events[3].scalars, UnorderedElementsAre(Pair("loss", 2.5f), Pair("skipped_in_phase", 3.0f)));
  EXPECT_EQ(events[3].step, 7);
  EXPECT_EQ(events[3].seconds, 12.5);
  EXPECT_THAT(events[4].scalars, UnorderedElementsAre(Pair("gradient_norm/embed_in", 1.0f),
                                                      Pair("gradient_norm/layer_10", 2.0f)));
  EXPECT_THAT(events[5].scalars, ElementsAre(Pair("attention_error/layer_1", 0.25f)));
}

TEST(TensorboardLog, LeavesOutWhatIsNotFinite) {
  const TemporaryFolder folder;
  TensorboardLog log(folder.path(), "");
  log.write({{"run_step", 1}, {"loss", std::nan("")}, {"lr", 0.5}});
  log.write({{"run_step", 2}, {"loss", INFINITY}});
  const std::vector<ReadEvent> events = events_in(folder.path());
  ASSERT_EQ(events.size(), 4u);
  EXPECT_THAT(events[3].scalars, ElementsAre(Pair("lr", 0.5f)));
}

TEST(TensorboardLog, BeginsWithWhatMetricsSay) {
  const TemporaryFolder folder;
  FileWriter metrics(folder / "metrics.jsonl");
  metrics.write("{\"run_step\":1,\"loss\":4.0,\"time\":10.5}\nnot json\n{\"run_step\":2,\"loss\":3.0}\n");
  metrics.close();
  testing::internal::CaptureStderr();
  TensorboardLog log(folder.path(), "");
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("metrics.jsonl:2: not a JSON object"));
  log.write({{"run_step", 3}, {"loss", 2.0}});
  EXPECT_THAT(series(events_in(folder.path()), "loss"),
              ElementsAre(Pair(1, 4.0f), Pair(2, 3.0f), Pair(3, 2.0f)));
  EXPECT_EQ(events_in(folder.path())[3].seconds, 10.5);
}

TEST(TensorboardLog, TakesThePlaceOfEarlierFilesUnderALaterName) {
  const TemporaryFolder folder;
  std::vector<fs::path> names;
  for (int start = 0; start < 3; ++start) {
    const TensorboardLog log(folder.path(), "");
    names.push_back(event_files(folder.path()).at(0));
    EXPECT_EQ(event_files(folder.path()).size(), 1u);
    const fs::directory_iterator all(folder.path());
    EXPECT_LE(std::distance(begin(all), end(all)), 2);
  }
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_NE(names[0], names[1]);
}

const Overrides settings = {"log.tensorboard=true", "checkpoint.every=3", "evaluate.every=5",
                            "log.layers_every=4"};

Overrides validated(const TrainingRun& run, Overrides overrides = settings) {
  overrides.push_back("data.validation=" + run.tokens().string());
  return overrides;
}

void expect_as_metrics(const TrainingRun& run) {
  const std::vector<ReadEvent> events = events_in(run.output());
  for (const char* key : {"loss", "lr", "grad_norm", "validation_loss", "validation_accuracy"})
    EXPECT_EQ(series(events, key), series(run, key)) << key;
  EXPECT_EQ(series(events, "loss").size(), 16u);
  EXPECT_EQ(series(events, "gradient_norm/layer_0").size(), 4u);
  EXPECT_EQ(series(events, "attention_error/layer_1").size(), 3u);
  EXPECT_TRUE(series(events, "attention_error/layer_0").empty());  // full
}

TEST(Tensorboard, SaysWhatMetricsSay) {
  TrainingRun run;
  run.train(validated(run));
  expect_as_metrics(run);
  EXPECT_THAT(events_in(run.output())[2].texts.at("run"), HasSubstr("\"sequence_length\": 24"));
}

TEST(Tensorboard, SaysNothingTwiceAfterACrash) {
  for (const int steps : {0, 2, 7, 8, 11}) {
    SCOPED_TRACE(steps);
    TrainingRun run;
    run.train_until_crash(steps, validated(run));
    run.train(validated(run));
    expect_as_metrics(run);
  }
}

TEST(Tensorboard, SaysNothingTwiceAfterASignal) {
  TrainingRun run;
  run.train_until_signal(5, validated(run));
  run.train(validated(run));
  expect_as_metrics(run);
}

TEST(Tensorboard, TakesUpARunThatBeganWithout) {
  TrainingRun run;
  run.train_until_signal(5, validated(run, {"log.layers_every=4", "evaluate.every=5"}));
  EXPECT_TRUE(event_files(run.output()).empty());
  run.train(validated(run));
  expect_as_metrics(run);
}

TEST(Tensorboard, AFinishedRunKeepsItsFile) {
  TrainingRun run;
  run.train(validated(run));
  const std::vector<fs::path> before = event_files(run.output());
  run.train(validated(run));
  EXPECT_EQ(event_files(run.output()), before);
}

}  // namespace
}  // namespace flasheva
