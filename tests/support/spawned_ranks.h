// Ranks without MPI: a test program starts itself once for each, with a socket between rank 0 and every
// other. For machines with a GPU and little else.
#pragma once

#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "kernels/check.h"
#include "src/distributed/device_sums.h"

namespace flasheva {

class SpawnedRank final : public Communicator {
 public:
  // Of the sockets to the others in a rank that spawn_ranks() starts: numbers that nothing else has.
  static constexpr int first_socket = 100;

  // Whether this process is one that spawn_ranks() started.
  static bool here() { return std::getenv("FLASHEVA_TEST_RANK") != nullptr; }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int local_rank() const override { return rank_; }
  int threads() const override { return 1; }
  std::string description() override { return std::to_string(size_) + " spawned ranks"; }
  void all_reduce_sum(std::span<double> values) override {
    for (const int other : sockets_) {
      if (rank_ != 0) send(other, values);
      std::vector<double> theirs(values.size());
      receive(other, theirs);
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = rank_ == 0 ? values[i] + theirs[i] : theirs[i];
    }
    if (rank_ == 0)
      for (const int other : sockets_) send(other, values);
  }
  void sum_on_gpu(DeviceSums& sums) override { sums_ = &sums; }
  void start_all_reduce_sum(Tensor tensor, Tensor scratch, DType travel) override {
    sums_->start_all_reduce_sum(tensor, scratch, travel);
  }
  void start_reduce_scatter_sum(Tensor tensor, Tensor scratch, DType travel) override {
    sums_->start_reduce_scatter_sum(tensor, scratch, travel);
  }
  void start_all_gather(Tensor tensor) override { sums_->start_all_gather(tensor); }
  void wait() override {
    while (sums_ != nullptr && !sums_->done()) std::this_thread::yield();
  }
  void set_timeout(double) override {}
  void set_patience(double, const std::string&) override {}
  void leave() override {
    std::vector<double> nothing(1);
    all_reduce_sum(nothing);
  }

 private:
  static int number(const char* variable) { return std::atoi(std::getenv(variable)); }
  std::vector<int> sockets() const {
    std::vector<int> all;
    for (int i = 0; i < (rank_ == 0 ? size_ - 1 : 1); ++i) all.push_back(first_socket + i);
    return all;
  }
  static void send(int socket, std::span<const double> values) {
    FLASHEVA_CHECK(::send(socket, values.data(), values.size_bytes(), MSG_NOSIGNAL) ==
                   static_cast<ssize_t>(values.size_bytes()));
  }
  static void receive(int socket, std::span<double> values) {
    FLASHEVA_CHECK(values.empty() || ::recv(socket, values.data(), values.size_bytes(), MSG_WAITALL) ==
                                         static_cast<ssize_t>(values.size_bytes()));
  }

  const int rank_ = number("FLASHEVA_TEST_RANK"), size_ = number("FLASHEVA_TEST_RANKS");
  const std::vector<int> sockets_ = sockets();
  DeviceSums* sums_ = nullptr;
};

// Runs this program as `ranks` ranks; 0 if all of them end well. Each claims a host of its own, as NCCL takes
// no two ranks of one host on one GPU. Nobody else holds a rank's ends of sockets: they close with it.
inline int spawn_ranks(int ranks, char* const* arguments) {
  std::vector<std::array<int, 2>> pairs(static_cast<std::size_t>(ranks) - 1);  // rank 0's end, the other's
  for (auto& pair : pairs)
    FLASHEVA_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0);
  ::setenv("FLASHEVA_TEST_RANKS", std::to_string(ranks).c_str(), 1);
  std::vector<pid_t> processes(static_cast<std::size_t>(ranks));
  for (std::size_t rank = 0; rank < processes.size(); ++rank) {
    ::setenv("FLASHEVA_TEST_RANK", std::to_string(rank).c_str(), 1);
    ::setenv("NCCL_HOSTID", ("rank" + std::to_string(rank)).c_str(), 1);
    posix_spawn_file_actions_t files;
    ::posix_spawn_file_actions_init(&files);
    int next = SpawnedRank::first_socket;
    for (std::size_t i = 0; i < pairs.size(); ++i)
      if (rank == 0 || rank == i + 1)
        ::posix_spawn_file_actions_adddup2(&files, pairs[i][rank == 0 ? 0 : 1], next++);
    FLASHEVA_CHECK(::posix_spawn(&processes[rank], "/proc/self/exe", &files, nullptr, arguments, environ) ==
                   0);
    ::posix_spawn_file_actions_destroy(&files);
  }
  ::unsetenv("FLASHEVA_TEST_RANK");
  for (const auto& pair : pairs)
    for (const int end : pair) ::close(end);
  int failed = 0;
  for (const pid_t process : processes) {
    int status = 0;
    ::waitpid(process, &status, 0);
    if (status != 0) failed = 1;
  }
  return failed;
}

}  // namespace flasheva
