// Runs of several ranks under mpirun: the same losses for any number of them, one line for what is wrong, and
// what happens when one of them is stopped, killed or hangs.
#include "tests/commands/ranks.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/commands/workspace.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

class Ranks : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    space = std::make_unique<Workspace>();
    expect_done({"train", space->at("scratch.yaml")});
    expect_done(command("one"));
  }
  static void TearDownTestSuite() { space.reset(); }

  // Two phases in float32, with chunk noise, sequences in a random order and micro batches of 2.
  static Arguments command(const std::string& output, const Arguments& overrides = {}) {
    Arguments words = {"train", space->at("tune.yaml"), "run.output=" + space->at(output),
                       "phases.1.precision=fp32", "batch.sequences=5"};
    words.insert(words.end(), overrides.begin(), overrides.end());
    return words;
  }
  // A run that does not end by itself in the time of a test.
  static Arguments long_command(const std::string& output, const Arguments& overrides = {}) {
    Arguments words = command(output, {"phases.0.steps=1000000", "checkpoint.every=20", "log.every=1000"});
    words.insert(words.end(), overrides.begin(), overrides.end());
    return words;
  }

  static void run(int ranks, const Arguments& arguments) {
    const Result result = Program(arguments, rank_environment, mpirun(ranks)).wait();
    ASSERT_EQ(result.code, 0) << result.err;
  }

  static std::string model(const std::string& output) {
    return read_text_file(space->folder / output / "model/model.safetensors");
  }

  static void expect_losses_of_one_rank(const std::string& output) {
    for (const char* key : {"loss", "validation_loss", "grad_norm"}) {
      const std::vector<double> losses = space->column(output, key), reference = space->column("one", key);
      ASSERT_EQ(losses.size(), reference.size()) << key;
      for (std::size_t i = 0; i < losses.size(); ++i)
        EXPECT_NEAR(losses[i], reference[i], 1e-6 * std::abs(reference[i])) << key << " " << i;
    }
  }

  static std::unique_ptr<Workspace> space;
};

std::unique_ptr<Workspace> Ranks::space;

TEST_F(Ranks, GiveTheSameLossesWhateverTheirNumber) {
  for (const int ranks : {2, 4}) {
    const std::string output = "ranks-" + std::to_string(ranks);
    run(ranks, command(output));
    expect_losses_of_one_rank(output);
  }
  run(3, command("micro-1", {"batch.micro=1"}));
  expect_losses_of_one_rank("micro-1");
}

// 6.5 million weights: two buckets of gradients, cut across tensors.
TEST_F(Ranks, SumGradientsOfMoreThanOneBucket) {
  const auto large = [&](const std::string& output, const char* sharded) {
    return Arguments{"train",
                     space->at("scratch.yaml"),
                     "run.output=" + space->at(output),
                     "model.architecture.vocab_size=50304",
                     "model.architecture.hidden_size=64",
                     "phases.0.steps=3",
                     "phases.0.optimizer.lr=1e-3",
                     std::string("distributed.shard_optimizer=") + sharded};
  };
  run(1, large("large-1", "false"));
  const std::vector<double> reference = space->column("large-1", "loss");
  for (const char* sharded : {"false", "true"}) {
    const std::string output = std::string("large-2-") + sharded;
    run(2, large(output, sharded));
    const std::vector<double> losses = space->column(output, "loss");
    ASSERT_EQ(losses.size(), 3u);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(losses[i], reference[i], 1e-6 * reference[i]) << sharded;
  }
}

TEST_F(Ranks, RepeatBitForBit) {
  run(2, command("first"));
  run(2, command("second"));
  EXPECT_TRUE(model("first") == model("second"));
  EXPECT_EQ(space->column("first", "loss"), space->column("second", "loss"));
}

TEST_F(Ranks, GoOnFromACheckpointOfAnotherNumber) {
  // Stopped in the first phase by 4 ranks, in the second by 1, ended by 2.
  const auto stop_after = [&](int ranks, int step) {
    Program program(command("changing"), rank_environment, mpirun(ranks));
    const fs::path reached = space->folder / "changing/checkpoints" / fmt::format("step-{:09}", step);
    while (!fs::exists(reached)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    program.signal(SIGUSR1);
    EXPECT_EQ(program.wait().code, static_cast<int>(ExitCode::preempted));
  };
  stop_after(4, 2);
  stop_after(1, 7);
  run(2, command("changing"));
  expect_losses_of_one_rank("changing");
}

TEST_F(Ranks, ShareTheOptimizersMoments) {
  for (const int ranks : {1, 2, 3, 4}) {  // 25,000 weights in shares of any size
    const std::string output = "sharded-" + std::to_string(ranks);
    run(ranks, command(output, {"distributed.shard_optimizer=true"}));
    expect_losses_of_one_rank(output);
    const fs::path last = space->folder / output / "checkpoints/step-000000012";
    const int files = static_cast<int>(std::count_if(
        fs::directory_iterator(last), fs::directory_iterator(),
        [](const auto& entry) { return entry.path().filename().string().rfind("optimizer", 0) == 0; }));
    EXPECT_EQ(files, ranks);
  }
}

TEST_F(Ranks, GoOnWithTheirMomentsSharedInAnotherWay) {
  const auto stop_after = [&](int ranks, int step, bool sharded) {
    Program program(command("resharded", {fmt::format("distributed.shard_optimizer={}", sharded)}),
                    rank_environment, mpirun(ranks));
    const fs::path reached = space->folder / "resharded/checkpoints" / fmt::format("step-{:09}", step);
    while (!fs::exists(reached)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    program.signal(SIGUSR1);
    EXPECT_EQ(program.wait().code, static_cast<int>(ExitCode::preempted));
  };
  stop_after(4, 2, true);
  stop_after(3, 4, true);
  stop_after(2, 7, false);
  run(2, command("resharded", {"distributed.shard_optimizer=true"}));
  expect_losses_of_one_rank("resharded");
}

TEST_F(Ranks, SayOnceWhatIsWrong) {
  const auto expect_one_line = [&](const Arguments& arguments, ExitCode code, const std::string& part) {
    const Result result = Program(arguments, rank_environment, mpirun(3)).wait();
    EXPECT_EQ(result.code, static_cast<int>(code)) << result.err;
    const std::size_t line = result.err.find("flasheva: ");
    ASSERT_NE(line, std::string::npos) << result.err;
    EXPECT_EQ(result.err.find("flasheva: ", line + 1), std::string::npos) << result.err;
    EXPECT_THAT(result.err, HasSubstr(part));
  };
  expect_one_line({"train", space->at("none.yaml")}, ExitCode::usage, "none.yaml");
  expect_one_line(command("bad", {"batch.sequence=1"}), ExitCode::usage, "did you mean 'sequences'?");
  expect_one_line(command("bad", {"batch.sequences=2"}), ExitCode::usage,
                  "batch.sequences 2 is smaller than the number of ranks 3");
  expect_one_line(command("bad", {"data.train=" + space->at("no.h5")}), ExitCode::data, "no.h5");
  expect_one_line(command("bad", {"run.output=/proc/none"}), ExitCode::disk, "/proc/none");
  expect_one_line(command("bad", {"phases.0.optimizer.lr=1e30"}), ExitCode::numeric,
                  "6 steps in a row changed nothing");
}

// --- stopped, killed, hanging
// ---------------------------------------------------------------------------------

class RanksInTrouble : public Ranks {
 protected:
  // Starts a long run and returns when it has written a checkpoint.
  void start(const std::string& output, int ranks, const Arguments& launcher,
             const Arguments& overrides = {}) {
    program = std::make_unique<Program>(long_command(output, overrides), rank_environment, launcher);
    const fs::path reached = space->folder / output / "checkpoints/step-000000020";
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!fs::exists(reached) && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ASSERT_TRUE(fs::exists(reached));
    processes.clear();
    for (int rank = 0; rank < ranks; ++rank) processes.push_back(process_of_rank(space->at(output), rank));
  }

  // Returns when it has ended, and fails if it has left a process behind.
  void end() {
    const auto start = std::chrono::steady_clock::now();
    result = program->wait();
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    expect_gone();
  }

  // Its processes are gone, or will be in a moment.
  void expect_gone() {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (std::any_of(processes.begin(), processes.end(), is_alive) &&
           std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    for (const pid_t process : processes) EXPECT_FALSE(is_alive(process)) << "process " << process;
  }

  void TearDown() override {
    for (const pid_t process : processes)
      if (process > 0) ::kill(process, SIGKILL);
  }

  std::unique_ptr<Program> program;
  std::vector<pid_t> processes;
  Result result;
  double seconds = 0;
};

TEST_F(RanksInTrouble, AnyOneThatIsAskedToStopStopsAllWithACheckpoint) {
  start("stopped", 3, mpirun(3));
  ::kill(processes[2], SIGTERM);
  end();
  EXPECT_EQ(result.code, static_cast<int>(ExitCode::preempted));
  EXPECT_EQ(count_in(result.err, "flasheva: stopped by a signal, checkpoint saved; "), 1) << result.err;
}

TEST_F(RanksInTrouble, ADeadRankIsNamedByEveryOther) {
  for (const int dead : {0, 1, 2}) {
    start("dead-" + std::to_string(dead), 3, patient_mpirun(3));
    const pid_t process = processes[static_cast<std::size_t>(dead)];
    ::kill(process, SIGKILL);
    end();
    EXPECT_LT(seconds, 5);
    EXPECT_EQ(count_in(result.err, fmt::format(": rank {} (process {} on ", dead, process)), 2) << result.err;
    EXPECT_EQ(count_in(result.err, ") died; start the same command again to go on"), 2) << result.err;
    EXPECT_EQ(count_in(result.err, "ended with 5\n"), 2) << result.err;
  }
}

TEST_F(RanksInTrouble, ADeadRankIsNamedBeforeMpirunEndsTheRest) {
  start("dead", 3, mpirun(3));
  ::kill(processes[1], SIGKILL);
  end();
  EXPECT_LT(seconds, 5);
  EXPECT_EQ(count_in(result.err, fmt::format(": rank 1 (process {} on ", processes[1])), 2) << result.err;
  EXPECT_EQ(result.code, 128 + SIGKILL);
}

TEST_F(RanksInTrouble, AHangingRankIsNamedByEveryOther) {
  for (const int hanging : {0, 1}) {
    start("hanging-" + std::to_string(hanging), 3, patient_mpirun(3), {"distributed.timeout=2"});
    const pid_t process = processes[static_cast<std::size_t>(hanging)];
    ::kill(process, SIGSTOP);
    std::this_thread::sleep_for(std::chrono::seconds(6));  // the others have left
    ::kill(process, SIGCONT);
    end();
    for (int other = 0; other < 3; ++other) {
      if (other == hanging) continue;
      EXPECT_EQ(count_in(result.err,
                         fmt::format("flasheva: rank {}: rank {} (process {} on ", other, hanging, process)),
                1)
          << result.err;
    }
    EXPECT_EQ(count_in(result.err, "ended with 5\n"), 3) << result.err;
  }
}

TEST_F(RanksInTrouble, AKilledLauncherLeavesNoneBehind) {
  start("orphans", 2, mpirun(2));
  program->signal(SIGKILL);
  program->wait();
  expect_gone();
}

}  // namespace
}  // namespace flasheva
