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
#include "tests/support/trials.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;

constexpr int most_ranks = 4, steps = 300, interval = 25;  // steps between checkpoints

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
      EXPECT_EQ(run_ranks(ranks, command(output)).code, 0);
      run_seconds[ranks] = seconds_now() - start;
      reference[ranks] = model(output);
    }
  }

  Arguments command(const std::string& output) const {
    return {"train",
            space.at("tune.yaml"),
            "run.output=" + space.at(output),
            fmt::format("phases.0.steps={}", steps / 2),
            fmt::format("phases.1.steps={}", steps / 2),
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

  // What the rest of the run would take.
  double seconds_left(int ranks) const {
    return run_seconds.at(ranks) * (1 - static_cast<double>(newest_checkpoint()) / steps);
  }
  // Waits until all ranks have started.
  std::vector<pid_t> processes_of(int ranks) const {
    std::vector<pid_t> processes(static_cast<std::size_t>(ranks), 0);
    const double deadline = seconds_now() + 30;
    for (int rank = 0; rank < ranks && seconds_now() < deadline;) {
      pid_t& process = processes[static_cast<std::size_t>(rank)];
      process = process_of_rank(space.at("run"), rank);
      if (process > 0)
        ++rank;
      else
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return processes;
  }

  // Kills one rank; false if the run had ended before.
  bool kill_one(int ranks, int victim, double after_seconds) {
    Program program(command("run"), rank_environment, mpirun(ranks));
    const std::vector<pid_t> processes = processes_of(ranks);
    std::this_thread::sleep_for(std::chrono::duration<double>(after_seconds));
    const pid_t process = processes[static_cast<std::size_t>(victim)];
    EXPECT_GT(process, 0);
    if (process > 0) ::kill(process, SIGKILL);
    const double killed = seconds_now();
    const auto some_live = [&] { return std::any_of(processes.begin(), processes.end(), is_alive); };
    while (some_live() && seconds_now() < killed + 30)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const double gone = seconds_now();
    for (const pid_t other : processes) orphans += is_alive(other);
    if (wait_for_ranks(program).code == 0) return false;
    slowest_exit = std::max(slowest_exit, gone - killed);
    const std::vector<double> logged = space.column("run", "run_step");
    const int reached = logged.empty() ? 0 : static_cast<int>(logged.back());
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
  const int wanted = trials(20);
  std::mt19937 random(1);
  int killed = 0, finished = 0;
  while (killed < wanted) {
    const int ranks = std::uniform_int_distribution(1, most_ranks)(random);
    const int kills = std::uniform_int_distribution(1, 8)(random);
    for (int i = 0; i < kills; ++i) {
      const double moment = std::uniform_real_distribution<double>(0, seconds_left(ranks))(random);
      if (!kill_one(ranks, std::uniform_int_distribution(0, ranks - 1)(random), moment)) break;
      ++killed;
    }
    const Result rest = run_ranks(ranks, command("run"));
    ASSERT_EQ(rest.code, 0) << rest.err;
    EXPECT_TRUE(model("run") == reference[ranks]) << ranks << " ranks";
    fs::remove_all(space.folder / "run");
    ++finished;
  }
  std::printf(
      "%d ranks killed in %d runs, all ended with the same bits; at most %d steps lost of %d between "
      "checkpoints; the others gone after at most %.1f s; %d left behind\n",
      killed, finished, most_lost, interval, slowest_exit, orphans);
  EXPECT_LE(most_lost, interval);
  EXPECT_LT(slowest_exit, 5);
  EXPECT_EQ(orphans, 0);
}

}  // namespace
}  // namespace flasheva
