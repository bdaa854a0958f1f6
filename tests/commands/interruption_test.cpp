// Runs of the program that are stopped, killed, or left without room on the disk, and then go on: the model
// at the end is that of the uninterrupted run, bit for bit.
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <cerrno>
#include <chrono>
#include <cstring>
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

TEST_F(Interruption, SignalsSaveACheckpointAndExitWith7) {
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    const std::string output = "signal-" + std::to_string(signal);
    Program program(command(output));
    while (!fs::exists(space->folder / output / "checkpoints/step-000000002")) sleep_seconds(0.001);
    program.signal(signal);
    const Result result = program.wait();
    EXPECT_EQ(result.code, static_cast<int>(ExitCode::preempted));
    EXPECT_THAT(result.err,
                HasSubstr("\nflasheva: stopped by a signal, checkpoint saved; the same command goes on"));
    EXPECT_LT(space->column(output, "loss").size(), 12u);
    expect_done(command(output));
    expect_as_reference(output);
  }
}

// A file system of a few megabytes, gone with the test.
class SmallDisk {
 public:
  SmallDisk(const fs::path& folder, const char* size) : folder_(folder) {
    fs::create_directories(folder);
    mounted_ =
        ::mount("flasheva-test", folder.c_str(), "tmpfs", 0, fmt::format("size={}", size).c_str()) == 0;
    reason_ = std::strerror(errno);
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(folder_.c_str(), MNT_DETACH);
  }
  void resize(const char* size) const {
    ASSERT_EQ(
        ::mount("flasheva-test", folder_.c_str(), "tmpfs", MS_REMOUNT, fmt::format("size={}", size).c_str()),
        0);
  }
  bool mounted() const { return mounted_; }
  const std::string& reason() const { return reason_; }

 private:
  fs::path folder_;
  bool mounted_ = false;
  std::string reason_;
};

TEST_F(Interruption, AFullDiskLeavesTheEarlierCheckpointAndTheRunGoesOnWithSpace) {
  const SmallDisk disk(space->folder / "disk", "3500k");
  if (!disk.mounted()) GTEST_SKIP() << "cannot mount a small file system: " << disk.reason();
  Arguments keep_all = command("disk/run");
  keep_all.push_back("checkpoint.keep=100");
  const Result result = flasheva(keep_all);
  EXPECT_EQ(result.code, static_cast<int>(ExitCode::disk)) << result.err;
  EXPECT_THAT(result.err, HasSubstr("\nflasheva: "));
  EXPECT_THAT(result.err, HasSubstr("free some space and start again\n"));
  const std::size_t done = space->column("disk/run", "loss").size();
  EXPECT_GE(done, 2u);
  EXPECT_LT(done, 12u);

  disk.resize("20m");
  const Result rest = flasheva(keep_all);
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_THAT(rest.err, HasSubstr(fmt::format("going on from {}/step-{:09}\n",
                                              space->at("disk/run/checkpoints"), done - 1)));
  EXPECT_THAT(rest.err, testing::Not(HasSubstr("warning")));
  expect_as_reference("disk/run");
}

TEST_F(Interruption, AFullDiskEndsEveryCommandThatWrites) {
  const SmallDisk disk(space->folder / "full", "64k");
  if (!disk.mounted()) GTEST_SKIP() << "cannot mount a small file system: " << disk.reason();
  const std::string model = space->at("reference/model"), part = "No space left on device";
  space->logits(model, std::vector<std::int32_t>(100, 1));  // leaves tokens.safetensors; 100 KB of logits
  expect_failure(
      {"logits", model, "--tokens", space->at("tokens.safetensors"), "--output", space->at("full/l")},
      ExitCode::disk, part);
  fs::remove(space->folder / "full/l");
  expect_failure({"convert", model, space->at("full/model")}, ExitCode::disk, part);
  EXPECT_FALSE(fs::exists(space->folder / "full/model"));
  write_text(space->folder / "long.txt", some_text(100000));
  expect_failure({"data", "prepare", "--input", space->at("long.txt"), "--output", space->at("full/t.h5")},
                 ExitCode::disk, part);
  EXPECT_FALSE(fs::exists(space->folder / "full/t.h5"));
}

}  // namespace
}  // namespace flasheva
