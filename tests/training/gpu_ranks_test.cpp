// Several ranks, each with a GPU: all of them run every test together. mpirun starts them where there is MPI,
// and the program itself where there is none. On a machine with one GPU, they share it.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "src/distributed/device_sums.h"
#include "tests/support/device_tensors.h"
#include "tests/support/spawned_ranks.h"
#include "tests/support/test_ops.h"
#include "tests/training/ranks.h"
#ifndef FLASHEVA_SIMULATED
#include "kernels/cuda/devices.h"
#endif

namespace flasheva {

Communicator* ranks = nullptr;

namespace {

Ops* ops = nullptr;

// Whole numbers: their sums are exact in any order.
float value_of(int rank, std::int64_t i) { return static_cast<float>((i * 7 + rank * 13) % 1001 - 500); }
float sum_of(std::int64_t i) {
  float sum = 0;
  for (int rank = 0; rank < ranks->size(); ++rank) sum += value_of(rank, i);
  return sum;
}

// A tensor on the GPU with this rank's values.
DeviceTensor own_values(std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) values[static_cast<std::size_t>(i)] = value_of(ranks->rank(), i);
  return DeviceTensor(*ops, Tensor{values.data(), DType::f32, {count}});
}

std::vector<float> host_values(const DeviceTensor& tensor) {
  const Tensor on_gpu = tensor;
  std::vector<float> values(static_cast<std::size_t>(on_gpu.size()));
  ops->copy(Tensor{values.data(), DType::f32, on_gpu.shape}, on_gpu);
  return values;
}

const std::int64_t counts[] = {1, 2, 3, 5, 17, 1000, 1000003};

TEST(GpuRanks, SumTensors) {
  for (const std::int64_t count : counts) {
    const DeviceTensor tensor = own_values(count);
    ranks->start_all_reduce_sum(tensor, {}, DType::f32);
    ranks->wait();
    const std::vector<float> values = host_values(tensor);
    for (std::int64_t i = 0; i < count; ++i)
      ASSERT_EQ(values[static_cast<std::size_t>(i)], sum_of(i)) << i << " of " << count;
  }
}

TEST(GpuRanks, SumTheirPiecesAndGatherThem) {
  for (const std::int64_t count : counts) {
    const DeviceTensor tensor = own_values(count);
    const Range own = piece_of_rank({0, count}, ranks->rank(), ranks->size());
    ranks->start_reduce_scatter_sum(tensor, {}, DType::f32);
    ranks->wait();
    std::vector<float> values = host_values(tensor);
    for (std::int64_t i = own.begin; i < own.end; ++i)
      ASSERT_EQ(values[static_cast<std::size_t>(i)], sum_of(i)) << i << " of " << count;
    ranks->start_all_gather(tensor);
    ranks->wait();
    values = host_values(tensor);
    for (std::int64_t i = 0; i < count; ++i)
      ASSERT_EQ(values[static_cast<std::size_t>(i)], sum_of(i)) << i << " of " << count;
  }
}

// A sum begins when what was asked of the GPU before has happened.
TEST(GpuRanks, SumWhatTheOperationsBeforeComputed) {
  const std::int64_t count = device_is_simulated() ? 1000 : 1 << 24;
  const DeviceTensor values = own_values(count), tensor(*ops, DType::f32, {count});
  for (int i = 0; i < 10; ++i) ops->residual(tensor, i == 0 ? Tensor(values) : Tensor(tensor), values, {});
  ranks->start_all_reduce_sum(tensor, {}, DType::f32);
  ranks->wait();
  const std::vector<float> sums = host_values(tensor);
  for (std::int64_t i = 0; i < count; ++i) ASSERT_EQ(sums[static_cast<std::size_t>(i)], 11 * sum_of(i)) << i;
}

// Small whole numbers are bfloat16 numbers too, and so are their sums.
TEST(GpuRanks, SumTensorsThatTravelAsBfloat16) {
  for (const std::int64_t count : counts) {
    const DeviceTensor tensor = own_values(count), scratch(*ops, DType::f32, {count + ranks->size()});
    ranks->start_all_reduce_sum(tensor, scratch, DType::bf16);
    ranks->wait();
    const std::vector<float> values = host_values(tensor);
    for (std::int64_t i = 0; i < count; ++i) {
      float sum = 0;
      for (int rank = 0; rank < ranks->size(); ++rank) {
        const auto as_it_travels = [](float x) { return static_cast<float>(bf16(x)); };
        sum = ranks->size() == 1 ? value_of(rank, i) : as_it_travels(sum + as_it_travels(value_of(rank, i)));
      }
      // With more than two ranks, the order of additions is NCCL's.
      const float bound = ranks->size() > 2 ? 2 * 500.0f * 0x1p-8f * static_cast<float>(ranks->size()) : 0;
      ASSERT_NEAR(values[static_cast<std::size_t>(i)], sum, bound) << i << " of " << count;
    }
  }
}

// Losses of a run of all ranks, against those of one rank alone.
void expect_the_losses_of_one_rank(double bound, const Overrides& more) {
  const Overrides settings = {"phases.0.steps=3", "phases.1.steps=3", "model.attention.noise.enabled=true"};
  SharedRun run(*ranks);
  ASSERT_EQ(flasheva::train(run.config(plus(settings, more)), *ops, *ranks, false), TrainOutcome::finished);
  if (ranks->rank() != 0) return;
  TrainingRun alone;  // on the CPU
  ASSERT_EQ(alone.train(settings), TrainOutcome::finished);
  const std::vector<double> losses = run.column("loss"), expected = alone.column("loss");
  ASSERT_EQ(losses.size(), expected.size());
  ASSERT_FALSE(losses.empty());
  for (std::size_t i = 0; i < losses.size(); ++i)
    EXPECT_NEAR(losses[i], expected[i], bound * std::abs(expected[i])) << i;
}

TEST(GpuRanks, TrainAsOneDoes) { expect_the_losses_of_one_rank(1e-5, {}); }
TEST(GpuRanks, TrainWithAShardedOptimizerAsOneDoes) {
  expect_the_losses_of_one_rank(1e-5, {"distributed.shard_optimizer=true"});
}
TEST(GpuRanks, TrainWithShardedGradientsAsOneDoes) {
  expect_the_losses_of_one_rank(1e-5, {"distributed.shard_gradients=true"});
}
// Gradients of 8 bits: as far from those of float32 as a bfloat16 phase's are.
TEST(GpuRanks, TrainWithGradientsThatTravelAsBfloat16) {
  expect_the_losses_of_one_rank(0.02, {"distributed.reduce_dtype=bf16"});
}

int run_all() {
  const std::unique_ptr<Communicator> communicator =
      SpawnedRank::here() ? std::make_unique<SpawnedRank>() : make_communicator();
  const std::unique_ptr<Ops> own = make_device_ops();
  const std::unique_ptr<DeviceSums> sums = make_nccl_sums(*communicator, *own);
  communicator->sum_on_gpu(*sums);
  ranks = communicator.get();
  ops = own.get();
  const int failed = RUN_ALL_TESTS();
  communicator->leave();
  return failed;
}

}  // namespace
}  // namespace flasheva

int main(int argc, char** argv) {
  using namespace flasheva;
  testing::InitGoogleTest(&argc, argv);
#ifdef FLASHEVA_SIMULATED
  return run_all();
#else
  if (SpawnedRank::here()) return run_all();
  if (usable_cuda_devices().empty()) {
    std::printf("skipped %d tests: %s\n", testing::UnitTest::GetInstance()->total_test_count(),
                describe_cuda_devices().at(0).c_str());
    return 77;
  }
  return spawn_ranks(1, argv) != 0 || spawn_ranks(2, argv) != 0;
#endif
}
