// What a rank ends with where a sum fails in the background: scripts start anew what lost another rank, and
// nothing else.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

#include "src/distributed/device_sums.h"
#include "src/distributed/mpi.h"

namespace flasheva {
namespace {

class FailingSums final : public DeviceSums {
 public:
  explicit FailingSums(std::function<void()> failure) : fail_(std::move(failure)) {}
  void start_all_reduce_sum(Tensor, Tensor, DType) override {}
  void start_reduce_scatter_sum(Tensor, Tensor, DType) override {}
  void start_all_gather(Tensor) override {}
  bool done() override {
    fail_();
    return true;
  }

 private:
  std::function<void()> fail_;
};

void wait_for_sums_that_fail(const std::function<void()>& failure) {
  ::setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
  ::setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
  const auto communicator = make_mpi_communicator();
  FailingSums sums(failure);
  communicator->sum_on_gpu(sums);
  communicator->wait();
}

class FailingJob : public testing::Test {
 protected:
  FailingJob() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }  // MPI starts in a process of its own

  static void expect_exit(ExitCode code, const std::string& line, const std::function<void()>& failure) {
    EXPECT_EXIT(wait_for_sums_that_fail(failure), testing::ExitedWithCode(static_cast<int>(code)), line);
  }
};

TEST_F(FailingJob, OfAFaultOfThisRankEndsAsAnyOtherFault) {
  expect_exit(ExitCode::other, "flasheva: rank 0: illegal memory access",
              [] { throw std::runtime_error("illegal memory access"); });
  expect_exit(ExitCode::other, "flasheva: rank 0: NCCL: unhandled cuda error",
              [] { fail(ExitCode::other, "NCCL: unhandled cuda error"); });
}

TEST_F(FailingJob, OfALostRankSaysSo) {
  expect_exit(ExitCode::peer_lost, "flasheva: rank 0: NCCL: a sum over ranks",
              [] { fail(ExitCode::peer_lost, "NCCL: a sum over ranks"); });
}

}  // namespace
}  // namespace flasheva
