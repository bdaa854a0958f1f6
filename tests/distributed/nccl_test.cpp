// How sums between GPUs end where they do not: with an error in place of a wait, and without a wait for them
// at the end. In the simulator, where NCCL hangs when a test says so.
#include <gtest/gtest.h>
#include <nccl.h>

#include "src/distributed/device_sums.h"
#include "tests/support/device_tensors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

class NcclSums : public testing::Test {
 protected:
  NcclSums() { nccl_aborted = nccl_destroyed = 0; }
  ~NcclSums() override {
    simulator::sums_hang = false;
    nccl_async_error = ncclSuccess;
  }

  const std::unique_ptr<Ops> ops = make_device_ops();
  const std::unique_ptr<Communicator> alone = make_single_communicator();
  const DeviceTensor tensor{*ops, DType::f32, {5}};
  std::unique_ptr<DeviceSums> sums = make_nccl_sums(*alone, *ops);
};

TEST_F(NcclSums, AreDestroyedAtTheEnd) {
  sums->start_all_reduce_sum(tensor, {}, DType::f32);
  EXPECT_TRUE(sums->done());
  sums.reset();
  EXPECT_EQ(nccl_destroyed, 1);
  EXPECT_EQ(nccl_aborted, 0);
}

TEST_F(NcclSums, AreAbortedWhereThisRankLeavesBecauseOfAnError) {
  simulator::sums_hang = true;
  try {
    const std::unique_ptr<DeviceSums> leaving = std::move(sums);
    leaving->start_all_reduce_sum(tensor, {}, DType::f32);
    EXPECT_FALSE(leaving->done());
    throw std::runtime_error("of this rank");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(nccl_aborted, 1);
  EXPECT_EQ(nccl_destroyed, 0);
}

TEST_F(NcclSums, ThatNeverEndAreThoseOfALostRank) {
  simulator::sums_hang = true;
  sums->start_all_reduce_sum(tensor, {}, DType::f32);
  nccl_async_error = ncclRemoteError;
  expect_error(ExitCode::peer_lost, "NCCL: a sum over ranks: simulated error", [&] { sums->done(); });
  EXPECT_EQ(nccl_aborted, 1);
  sums.reset();  // nothing is left to end
  EXPECT_EQ(nccl_aborted, 1);
  EXPECT_EQ(nccl_destroyed, 0);
}

}  // namespace
}  // namespace flasheva
