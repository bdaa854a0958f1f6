// Ranks killed at random moments: the others leave at once, nothing but the steps since the last checkpoint
// is lost, and the run goes on to the bits of one that nothing disturbed. FLASHEVA_TRIALS sets how many are
// killed.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <thread>

#include "tests/commands/ranks.h"
#include "tests/commands/workspace.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;

constexpr int most_ranks = 4, interval = 25;  // steps between checkpoints

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class KilledRanks : public testing::Test {
 protected:
  KilledRanks() {
    expect_done({"train", space.at("scratch.yaml")});
    for (int ranks = 1; ranks <= most_ranks; ++ranks) {
      const std::string output = fmt::format("reference-{}", ranks);
      const double start = seconds_now();
      EXPECT_EQ(Program(command(output), rank_environment, mpirun(ranks)).wait().code, 0);
      run_seconds[ranks] = seconds_now() - start;
      reference[ranks] = model(output);
    }
  }

  Arguments command(const std::string& output) const {
    return {"train",
            space.at("tune.yaml"),
            "run.output=" + space.at(output),
            "phases.0.steps=150",
            "phases.1.steps=150",
            fmt::format("checkpoint.every={}", interval)};
  }
  std::string model(const std::string& output) const {
    return read_text_file(space.folder / output / "model/model.safetensors");
  }
  int newest_checkpoint() const {
    int newest = 0;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(space.folder / "run/checkpoints", none))
      if (entry.path().filename().string().rfind("step-", 0) == 0)
        newest = std::max(newest, std::atoi(entry.path().filename().c_str() + 5));
    return newest;
  }

  // Kills one rank; false if the run had ended before.
  bool kill_one(int ranks, int victim, double after_seconds) {
    Program program(command("run"), rank_environment, mpirun(ranks));
    std::this_thread::sleep_for(std::chrono::duration<double>(after_seconds));
    std::vector<pid_t> processes;
    for (int rank = 0; rank < ranks; ++rank) processes.push_back(process_of_rank(space.at("run"), rank));
    const pid_t process = processes[static_cast<std::size_t>(victim)];
    if (process > 0) ::kill(process, SIGKILL);
    const double killed = seconds_now();
    const Result result = program.wait();
    if (process == 0 || result.code == 0) return false;
    slowest_exit = std::max(slowest_exit, seconds_now() - killed);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    for (const pid_t other : processes) orphans += other > 0 && is_alive(other);
    const std::vector<double> steps = space.column("run", "run_step");
    const int reached = steps.empty() ? 0 : static_cast<int>(steps.back());
    most_lost = std::max(most_lost, reached - newest_checkpoint());
    return true;
  }

  Workspace space;
  std::map<int, double> run_seconds;
  std::map<int, std::string> reference;
  double slowest_exit = 0;
  int most_lost = 0, orphans = 0;
};

TEST_F(KilledRanks, GoOnToTheSameBits) {
  const char* wanted = std::getenv("FLASHEVA_TRIALS");
  const int trials = wanted != nullptr ? std::atoi(wanted) : 5;
  std::mt19937 random(1);
  int killed = 0, finished = 0;
  while (killed < trials) {
    const int ranks = std::uniform_int_distribution(1, most_ranks)(random);
    std::uniform_real_distribution<double> moment(0, run_seconds[ranks]);
    const int kills = std::uniform_int_distribution(1, 3)(random);
    for (int i = 0; i < kills; ++i)
      killed += kill_one(ranks, std::uniform_int_distribution(0, ranks - 1)(random), moment(random));
    const Result rest = Program(command("run"), rank_environment, mpirun(ranks)).wait();
    ASSERT_EQ(rest.code, 0) << rest.err;
    EXPECT_TRUE(model("run") == reference[ranks]) << ranks << " ranks";
    fs::remove_all(space.folder / "run");
    ++finished;
  }
  std::printf(
      "%d ranks killed in %d runs, all ended with the same bits; at most %d steps lost of %d between "
      "checkpoints; the others gone after at most %.1f s; %d left behind\n",
      killed, finished, most_lost, interval, slowest_exit, orphans);
  EXPECT_LE(most_lost, 2 * interval);  // a checkpoint that is not written yet counts for nothing
  EXPECT_LT(slowest_exit, 5);
  EXPECT_EQ(orphans, 0);
}

}  // namespace
}  // namespace flasheva
