// What tests under mpirun share: the ranks, and the committed run in a folder that all of them see.
#pragma once

#include <unistd.h>

#include <string>

#include "tests/training/training_run.h"

namespace flasheva {

// Hands everything on to another one.
class ForwardingCommunicator : public Communicator {
 public:
  explicit ForwardingCommunicator(Communicator& to) : to_(to) {}
  int rank() const override { return to_.rank(); }
  int size() const override { return to_.size(); }
  int local_rank() const override { return to_.local_rank(); }
  int threads() const override { return to_.threads(); }
  std::string description() override { return to_.description(); }
  void all_reduce_sum(std::span<double> values) override { to_.all_reduce_sum(values); }
  void sum_on_gpu(DeviceSums& sums) override { to_.sum_on_gpu(sums); }
  void start_all_reduce_sum(Tensor tensor, Tensor scratch, DType travel) override {
    to_.start_all_reduce_sum(tensor, scratch, travel);
  }
  void start_reduce_scatter_sum(Tensor tensor, Tensor scratch, DType travel) override {
    to_.start_reduce_scatter_sum(tensor, scratch, travel);
  }
  void start_all_gather(Tensor tensor) override { to_.start_all_gather(tensor); }
  void wait() override { to_.wait(); }
  void set_timeout(double seconds) override { to_.set_timeout(seconds); }
  void set_patience(double seconds, const std::string& during) override { to_.set_patience(seconds, during); }
  void leave() override { to_.leave(); }

 private:
  Communicator& to_;
};

// The committed run in a folder that all ranks see: made by the first, and gone with it.
class SharedRun : public TrainingRun {
 public:
  explicit SharedRun(Communicator& ranks) : TrainingRun(folder_of(ranks)), ranks_(ranks) {
    if (ranks.rank() == 0) {
      std::filesystem::create_directories(tokens().parent_path());
      write_fixture_tokens(tokens());
    }
    from_first_rank(ranks, 0);  // it is there
  }
  ~SharedRun() {
    std::error_code ignored;
    if (ranks_.rank() == 0) std::filesystem::remove_all(tokens().parent_path(), ignored);
  }

 private:
  static std::filesystem::path folder_of(Communicator& ranks) {
    static int runs = 0;
    return memory_folder() /
           fmt::format("flasheva-ranks-{:.0f}-{}", from_first_rank(ranks, ::getpid()), ++runs);
  }

  Communicator& ranks_;
};

inline Overrides plus(Overrides overrides, const Overrides& more) {
  overrides.insert(overrides.end(), more.begin(), more.end());
  return overrides;
}

// All ranks run all tests of a program, together.
extern Communicator* ranks;

inline int run_tests_with_ranks(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const auto communicator = make_communicator();
  ranks = communicator.get();
  const int failed = RUN_ALL_TESTS();
  communicator->leave();
  return failed;
}

}  // namespace flasheva
