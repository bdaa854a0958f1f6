// Runs of the program that are stopped or killed, and then go on: the model at the end is that of the
// uninterrupted run, bit for bit.
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "tests/commands/workspace.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Interruption : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    space = std::make_unique<Workspace>();
    expect_done({"train", space->at("scratch.yaml")});
    expect_done(command("reference"));
    const auto start = std::chrono::steady_clock::now();
    expect_done(command("again"));
    run_time = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  static void TearDownTestSuite() { space.reset(); }

  // Two phases, the second in bfloat16, a checkpoint after each of the 12 steps.
  static Arguments command(const std::string& output) {
    return {"train", space->at("tune.yaml"), "run.output=" + space->at(output)};
  }

  static Result stopped_after_two_steps(const std::string& output, int signal);

  static void expect_as_reference(const std::string& output) {
    const auto model = [&](const std::string& run) {
      return read_text_file(space->folder / run / "model/model.safetensors");
    };
    EXPECT_TRUE(model(output) == model("reference"));
    for (const char* key : {"loss", "grad_norm", "validation_loss"})
      EXPECT_EQ(space->column(output, key), space->column("reference", key)) << key;
  }

  static std::unique_ptr<Workspace> space;
  static double run_time;  // seconds of a whole run
};

std::unique_ptr<Workspace> Interruption::space;
double Interruption::run_time;

void sleep_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

// 20 kills at random moments: while it starts, computes, and writes checkpoints or the model.
TEST_F(Interruption, KilledAtRandomMoments) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> moment(0.1 * run_time, 0.6 * run_time);
  int finished = 0, half_written = 0;
  for (int kills = 0; kills < 20;) {
    Program program(command("killed"));
    sleep_seconds(moment(random));
    program.signal(SIGKILL);
    const Result result = program.wait();
    if (result.code == 128 + SIGKILL) {
      ++kills;
      std::error_code none;
      for (const auto& entry : fs::directory_iterator(space->folder / "killed/checkpoints", none))
        half_written += entry.path().filename().string().rfind("writing-", 0) == 0;
      continue;
    }
    ASSERT_EQ(result.code, 0) << result.err;
    expect_as_reference("killed");
    fs::remove_all(space->folder / "killed");
    ++finished;
  }
  expect_done(command("killed"));
  expect_as_reference("killed");
  RecordProperty("runs_finished", finished);
  RecordProperty("checkpoints_left_half_written", half_written);
}

// On a busy machine the run may be over before this process notices that it has begun: then once more.
Result Interruption::stopped_after_two_steps(const std::string& output, int signal) {
  Arguments keep_all = command(output);
  keep_all.push_back("checkpoint.keep=100");
  Result result;
  for (int attempts = 0; attempts < 20 && result.code == 0; ++attempts) {
    fs::remove_all(space->folder / output);
    Program program(keep_all);
    const fs::path second = space->folder / output / "checkpoints/step-000000002";
    while (!fs::exists(second) && program.runs()) sleep_seconds(0.001);
    program.signal(signal);
    result = program.wait();
  }
  return result;
}

TEST_F(Interruption, SignalsSaveACheckpointAndExitWith7) {
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    const std::string output = "signal-" + std::to_string(signal);
    const Result result = stopped_after_two_steps(output, signal);
    EXPECT_EQ(result.code, static_cast<int>(ExitCode::preempted));
    EXPECT_THAT(result.err,
                HasSubstr("\nflasheva: stopped by a signal, checkpoint saved; the same command goes on"));
    EXPECT_LT(space->column(output, "loss").size(), 12u);
    expect_done(command(output));
    expect_as_reference(output);
  }
}

}  // namespace
}  // namespace flasheva
