// Ranks that watch each other, as processes without MPI: which of them are taken for hanging.
#include "src/distributed/peer_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "kernels/check.h"
#include "src/core/error.h"
#include "src/core/pieces_done.h"

namespace flasheva {
namespace {

using testing::HasSubstr;

constexpr int ranks = 3, peer_lost = static_cast<int>(ExitCode::peer_lost);
constexpr double patience = 1;  // seconds

void rest(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

class WatchedRanks : public testing::Test {
 protected:
  using Life = std::function<void(int rank, PeerWatch&)>;

  void start(const Life& life) {
    for (int rank = 1; rank < ranks; ++rank)
      ASSERT_EQ(::pipe(pipes[static_cast<std::size_t>(rank)].data()), 0);
    for (int rank = 0; rank < ranks; ++rank) {
      said[static_cast<std::size_t>(rank)] = std::tmpfile();
      pid_t& process = processes[static_cast<std::size_t>(rank)];
      process = ::fork();
      if (process == 0) live(rank, life);
    }
  }

  // How each has ended, and what it said.
  void wait() {
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      int status = 0;
      ::waitpid(processes[rank], &status, 0);
      codes.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : -1);
      lines.emplace_back();
      std::rewind(said[rank]);
      for (int c = std::fgetc(said[rank]); c != EOF; c = std::fgetc(said[rank]))
        lines.back() += static_cast<char>(c);
      std::fclose(said[rank]);
    }
    for (std::size_t rank = 1; rank < ranks; ++rank)
      for (const int end : pipes[rank]) ::close(end);
  }

  void signal_all(int number) const {
    for (const pid_t process : processes) ::kill(process, number);
  }

  std::string name_of(int rank) const {
    return fmt::format("rank {} (process {} on ", rank, processes[static_cast<std::size_t>(rank)]);
  }

  std::array<pid_t, ranks> processes{};
  std::vector<int> codes;
  std::vector<std::string> lines;

 private:
  [[noreturn]] void live(int rank, const Life& life) {
    ::alarm(20);  // a watch that sleeps
    ::dup2(::fileno(said[static_cast<std::size_t>(rank)]), STDERR_FILENO);
    try {
      PeerWatch watch(rank, ranks, [&](std::span<char> bytes) { broadcast(rank, bytes); });
      watch.set_patience(patience, "validation");
      life(rank, watch);
      watch.farewell();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      ::_exit(1);
    }
    ::_exit(0);
  }

  // Shorter than what a pipe takes in one piece.
  void broadcast(int rank, std::span<char> bytes) const {
    const auto own = static_cast<std::size_t>(rank);
    ssize_t done = 0;
    if (rank != 0) done = ::read(pipes[own][0], bytes.data(), bytes.size());
    for (std::size_t other = 1; rank == 0 && other < ranks; ++other)
      done = ::write(pipes[other][1], bytes.data(), bytes.size());
    FLASHEVA_CHECK(done == std::ssize(bytes));
  }

  std::array<std::array<int, 2>, ranks> pipes{};  // from rank 0 to each of the others
  std::array<std::FILE*, ranks> said{};
};

TEST_F(WatchedRanks, OneThatDoesNothingWhileOthersWaitIsNamedByAll) {
  for (const int hanging : {0, 2}) {
    start([&](int rank, PeerWatch& watch) {
      if (rank != hanging) watch.begin_call();
      while (true) ::pause();
    });
    wait();
    EXPECT_THAT(codes, testing::Each(peer_lost));
    for (const std::string& line : lines) {
      EXPECT_THAT(line, HasSubstr(": " + name_of(hanging)));
      EXPECT_THAT(line,
                  HasSubstr(") has done nothing for 1 s, during validation, and others wait for it; start"));
      EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1) << line;
    }
    codes.clear();
    lines.clear();
  }
}

TEST_F(WatchedRanks, OneThatIsSlowIsWaitedFor) {
  for (const int slow : {0, 2}) {
    start([&](int rank, PeerWatch& watch) {
      if (rank != slow) watch.begin_call();
      for (int piece = 0; piece < 30; ++piece) {
        rest(0.1);
        if (rank == slow) ++pieces_done;
      }
      watch.end_call();
    });
    wait();
    EXPECT_THAT(codes, testing::Each(0)) << lines[0];
  }
}

TEST_F(WatchedRanks, NobodyHangsWhereNobodyWaits) {
  start([](int rank, PeerWatch& watch) {
    if (rank != 2) watch.begin_call();  // and is through it
    watch.end_call();
    rest(2.5 * patience);
  });
  wait();
  EXPECT_THAT(codes, testing::Each(0)) << lines[0];
}

TEST_F(WatchedRanks, NoneIsBlamedForASumThatAllAreIn) {
  start([](int, PeerWatch& watch) {
    watch.begin_call();
    while (true) ::pause();
  });
  wait();
  EXPECT_THAT(codes, testing::Each(peer_lost));
  for (const std::string& line : lines)
    EXPECT_THAT(line, HasSubstr(": all ranks have been in the same sum for 1 s, during validation: "));
}

// As Slurm does to a job that makes room for another, and a terminal where someone presses Ctrl-Z.
TEST_F(WatchedRanks, ThatAllStandStillTogetherDoesNoHarm) {
  start([](int rank, PeerWatch& watch) {
    watch.set_timeout(1);
    if (rank != 2) watch.begin_call();
    for (int piece = 0; piece < 20; ++piece) {
      rest(0.1);
      if (rank == 2) ++pieces_done;
    }
  });
  rest(0.7);
  signal_all(SIGSTOP);
  rest(2.5);
  signal_all(SIGCONT);
  wait();
  EXPECT_THAT(codes, testing::Each(0)) << lines[0];
}

}  // namespace
}  // namespace flasheva
