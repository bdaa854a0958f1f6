// Runs of several ranks under mpirun: the same losses for any number of them, one line for what is wrong, and
// what happens when one of them is stopped, killed or hangs.
#include "tests/commands/ranks.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "src/io/checkpoint.h"
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
    const Result result = run_ranks(ranks, arguments);
    ASSERT_EQ(result.code, 0) << result.err;
  }

  static int newest_checkpoint(const std::string& output) {
    int newest = 0;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(space->folder / output / "checkpoints", none))
      if (entry.path().filename().string().rfind("step-", 0) == 0)
        newest = std::max(newest, std::atoi(entry.path().filename().c_str() + 5));
    return newest;
  }

  // Starts the run, or goes on with it, and stops it once it has written a checkpoint.
  static void stop_at_next_checkpoint(int ranks, const std::string& output, const Arguments& overrides = {}) {
    const int before = newest_checkpoint(output);
    Program program(command(output, overrides), rank_environment, mpirun(ranks));
    while (newest_checkpoint(output) <= before && program.runs())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    program.signal(SIGUSR1);
    EXPECT_EQ(wait_for_ranks(program).code, static_cast<int>(ExitCode::preempted))
        << output << " after step " << before;
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

// All see an overflow wherever it happened, and none drifts apart from the others (guards.weights_every).
TEST_F(Ranks, LowerTheLossScaleTogether) {
  const auto in_float16 = [&](const std::string& output) {  // 64 targets: 2^24 / 64 is beyond float16
    return command(output, {"phases.0.precision=fp16", "phases.1.precision=fp16", "guards.weights_every=1",
                            "batch.sequences=4", "data.sequence_length=16",
                            "phases.0.loss_scale={initial: 16777216, growth_interval: 2}"});
  };
  run(1, in_float16("scaled-1"));
  run(2, in_float16("scaled-2"));
  const std::vector<double> scales = space->column("scaled-1", "loss_scale");
  ASSERT_EQ(scales.size(), 12u);
  EXPECT_LT(scales[5], scales[0]);
  EXPECT_EQ(space->column("scaled-2", "loss_scale"), scales);
}

// 6.5 million weights: two buckets of gradients, cut across tensors.
TEST_F(Ranks, SumGradientsOfMoreThanOneBucket) {
  const auto large = [&](const std::string& output, const std::string& sharding) {
    return Arguments{"train",
                     space->at("scratch.yaml"),
                     "run.output=" + space->at(output),
                     "model.architecture.vocab_size=50304",
                     "model.architecture.hidden_size=64",
                     "phases.0.steps=3",
                     "phases.0.optimizer.lr=1e-3",
                     "distributed=" + sharding};
  };
  run(1, large("large-1", "{}"));
  const std::vector<double> reference = space->column("large-1", "loss");
  for (const char* sharding : {"{}", "{shard_optimizer: true}", "{shard_gradients: true}"}) {
    const std::string output = fmt::format("large-2-{}", std::strlen(sharding));
    run(2, large(output, sharding));
    const std::vector<double> losses = space->column(output, "loss");
    ASSERT_EQ(losses.size(), 3u);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(losses[i], reference[i], 1e-6 * reference[i]) << sharding;
  }
}

TEST_F(Ranks, RepeatBitForBit) {
  run(2, command("first"));
  run(2, command("second"));
  EXPECT_TRUE(model("first") == model("second"));
  EXPECT_EQ(space->column("first", "loss"), space->column("second", "loss"));
}

TEST_F(Ranks, GoOnFromACheckpointOfAnotherNumber) {
  stop_at_next_checkpoint(4, "changing");
  stop_at_next_checkpoint(1, "changing");
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
    EXPECT_EQ(checkpoint_fault(last), "");
  }
}

// 5 sequences over 4 ranks: micro batches of 1 or 2, one or two of them.
TEST_F(Ranks, ShareTheGradients) {
  for (const int ranks : {1, 2, 3, 4})
    for (const int micro : {1, 2}) {
      const std::string output = fmt::format("shared-gradients-{}-{}", ranks, micro);
      run(ranks, command(output, {"distributed.shard_gradients=true", fmt::format("batch.micro={}", micro)}));
      expect_losses_of_one_rank(output);
    }
}

TEST_F(Ranks, GoOnWithMomentsAndGradientsSharedInAnotherWay) {
  const Arguments whole, moments = {"distributed.shard_optimizer=true"},
                         gradients = {"distributed.shard_gradients=true"};
  stop_at_next_checkpoint(4, "resharded", gradients);
  stop_at_next_checkpoint(1, "resharded", gradients);
  run(2, command("resharded", gradients));
  expect_losses_of_one_rank("resharded");

  stop_at_next_checkpoint(3, "resharded-again", moments);
  stop_at_next_checkpoint(2, "resharded-again", whole);
  run(2, command("resharded-again", gradients));
  expect_losses_of_one_rank("resharded-again");
}

TEST_F(Ranks, SayOnceWhatIsWrong) {
  const auto expect_one_line = [&](const Arguments& arguments, ExitCode code, const std::string& part) {
    const Result result = run_ranks(3, arguments);
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

TEST_F(Ranks, RanksOfAnotherMpisLauncherAreRefusedInOneLine) {
  for (const int rank : {0, 1}) {
    const Result result = flasheva(command("bad"), {"PMI_SIZE=2", fmt::format("PMI_RANK={}", rank)});
    EXPECT_EQ(result.code, static_cast<int>(ExitCode::usage));
    EXPECT_EQ(count_in(result.err, "2 ranks were started by a launcher"), rank == 0 ? 1 : 0) << result.err;
    EXPECT_EQ(result.err.empty(), rank != 0) << result.err;
  }
}

TEST_F(Ranks, TasksOfSrunThatDoNotKnowOfEachOtherAreRefusedInOneLine) {
  for (const int task : {0, 1, 2}) {
    const Result result =
        flasheva(command("bad"), {"SLURM_STEP_NUM_TASKS=3", fmt::format("SLURM_PROCID={}", task)});
    EXPECT_EQ(result.code, static_cast<int>(ExitCode::usage));
    EXPECT_EQ(count_in(result.err, "use srun --mpi=pmix\n"), task == 0 ? 1 : 0) << result.err;
    EXPECT_EQ(result.err.empty(), task != 0) << result.err;
  }
}

// --- stopped, killed, hanging --------------------------------------------------------------------------

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

  // Returns when it has ended. `seconds`: until the last rank was gone.
  void end() {
    const auto start = std::chrono::steady_clock::now();
    expect_gone();
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    result = wait_for_ranks(*program);
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
  // Open MPI 5 leaves no time for all of them to say so.
  EXPECT_GE(count_in(result.err, fmt::format(": rank 1 (process {} on ", processes[1])), 1) << result.err;
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

// As where Slurm suspends a job.
TEST_F(RanksInTrouble, AllThatStandStillTogetherGoOn) {
  start("suspended", 3, mpirun(3), {"distributed.timeout=2"});
  for (const int signal : {SIGSTOP, SIGCONT}) {
    for (const pid_t process : processes) ::kill(process, signal);
    std::this_thread::sleep_for(std::chrono::seconds(4));
  }
  ::kill(processes[2], SIGTERM);
  end();
  EXPECT_EQ(result.code, static_cast<int>(ExitCode::preempted)) << result.err;
}

TEST_F(RanksInTrouble, AKilledLauncherLeavesNoneBehind) {
  start("orphans", 2, mpirun(2));
  program->signal(SIGKILL);
  program->wait();
  expect_gone();
}

}  // namespace
}  // namespace flasheva
