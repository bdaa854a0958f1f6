// The communicator of any number of ranks: mpirun starts this program several times, and all of them run the
// same tests together.
#include "src/distributed/communicator.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <csignal>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace {
// What this rank handed to MPI for the two halves of a sum.
std::int64_t bytes_travelled = 0;

std::int64_t bytes_of(MPI_Datatype type, const int* counts) {
  int ranks = 0, size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  MPI_Type_size(type, &size);
  return std::accumulate(counts, counts + ranks, std::int64_t{0}) * size;
}
}  // namespace

// MPI's own hooks for whoever wants to watch its calls.
int MPI_Ialltoallv(const void* in, const int* in_counts, const int* in_firsts, MPI_Datatype in_type,
                   void* out, const int* out_counts, const int* out_firsts, MPI_Datatype out_type,
                   MPI_Comm world, MPI_Request* request) {
  bytes_travelled += bytes_of(in_type, in_counts);
  return PMPI_Ialltoallv(in, in_counts, in_firsts, in_type, out, out_counts, out_firsts, out_type, world,
                         request);
}
int MPI_Iallgatherv(const void* in, int in_count, MPI_Datatype in_type, void* out, const int* out_counts,
                    const int* out_firsts, MPI_Datatype out_type, MPI_Comm world, MPI_Request* request) {
  bytes_travelled += bytes_of(out_type, out_counts);
  return PMPI_Iallgatherv(in, in_count, in_type, out, out_counts, out_firsts, out_type, world, request);
}

namespace flasheva {
namespace {

Communicator* ranks = nullptr;

// What rank r has before a sum: every rank can compute every other's.
template <class T>
std::vector<T> values_of(int rank, std::size_t count, unsigned seed) {
  std::mt19937 random(seed + 1000u * static_cast<unsigned>(rank));
  std::normal_distribution<T> normal;
  std::vector<T> values(count);
  for (T& value : values) value = normal(random);
  return values;
}

template <class T>
std::vector<T> expected_sum(std::size_t count, unsigned seed) {
  std::vector<T> sum = values_of<T>(0, count, seed);
  for (int rank = 1; rank < ranks->size(); ++rank) {
    const std::vector<T> values = values_of<T>(rank, count, seed);
    for (std::size_t i = 0; i < count; ++i) sum[i] += values[i];
  }
  return sum;
}

template <class T>
Tensor tensor_of(std::vector<T>& values) {
  return Tensor{values.data(), DTypeOf<T>::value, {static_cast<std::int64_t>(values.size())}};
}

template <class T>
std::vector<T> scratch_for(std::size_t count) {
  return std::vector<T>(
      static_cast<std::size_t>(scratch_elements(static_cast<std::int64_t>(count), ranks->size())));
}

TEST(Communicator, SumsValuesInTheOrderOfTheRanks) {
  for (const std::size_t count : {1u, 3u, 100u}) {
    std::vector<double> values = values_of<double>(ranks->rank(), count, 7);
    ranks->all_reduce_sum(values);
    EXPECT_EQ(values, expected_sum<double>(count, 7)) << count;
  }
}

template <class T>
void sums_tensors() {
  for (const std::size_t count : {0u, 1u, 2u, 3u, 5u, 17u, 1000u, 1000003u}) {
    std::vector<T> values = values_of<T>(ranks->rank(), count, 11), scratch = scratch_for<T>(count);
    ranks->start_all_reduce_sum(tensor_of(values), tensor_of(scratch), DTypeOf<T>::value);
    ranks->wait();
    EXPECT_EQ(values, expected_sum<T>(count, 11)) << count;
  }
}
TEST(Communicator, SumsTensorsInTheOrderOfTheRanks) {
  sums_tensors<float>();
  sums_tensors<double>();
}

float rounded(float value) { return static_cast<float>(bf16(value)); }

// Plainly: every rank's elements rounded, added in float32 in the order of the ranks.
std::vector<float> sum_of_rounded(std::size_t count, unsigned seed) {
  std::vector<float> sum = values_of<float>(0, count, seed);
  for (float& value : sum) value = rounded(value);
  for (int rank = 1; rank < ranks->size(); ++rank) {
    const std::vector<float> values = values_of<float>(rank, count, seed);
    for (std::size_t i = 0; i < count; ++i) sum[i] += rounded(values[i]);
  }
  return sum;
}

TEST(Communicator, TensorsThatTravelAsBfloat16AreRoundedOnTheWayAlone) {
  for (const std::size_t count : {0u, 1u, 2u, 3u, 5u, 17u, 1000u, 1000003u}) {
    const std::vector<float> before = values_of<float>(ranks->rank(), count, 11);
    std::vector<float> all = before, piece = before, scratch = scratch_for<float>(count);
    ranks->start_all_reduce_sum(tensor_of(all), tensor_of(scratch), DType::bf16);
    ranks->start_reduce_scatter_sum(tensor_of(piece), tensor_of(scratch), DType::bf16);
    ranks->wait();
    const std::vector<float> sum = ranks->size() > 1 ? sum_of_rounded(count, 11) : before;
    const Range own = piece_of_rank({0, static_cast<std::int64_t>(count)}, ranks->rank(), ranks->size());
    for (std::size_t i = 0; i < count; ++i) {
      const bool is_own = static_cast<std::int64_t>(i) >= own.begin && static_cast<std::int64_t>(i) < own.end;
      ASSERT_EQ(all[i], ranks->size() > 1 ? rounded(sum[i]) : sum[i]) << i << " of " << count;
      ASSERT_EQ(piece[i], is_own ? sum[i] : before[i]) << i << " of " << count;
    }
  }
}

TEST(Communicator, Bfloat16HalvesTheBytesThatTravel) {
  constexpr std::size_t count = 10000;
  const auto bytes = [&](DType travel) {
    std::vector<float> values = values_of<float>(ranks->rank(), count, 11),
                       scratch = scratch_for<float>(count);
    bytes_travelled = 0;
    ranks->start_all_reduce_sum(tensor_of(values), tensor_of(scratch), travel);
    ranks->wait();
    return bytes_travelled;
  };
  EXPECT_EQ(bytes(DType::f32), ranks->size() > 1 ? 2 * 4 * std::int64_t{count} : 0);
  EXPECT_EQ(bytes(DType::bf16), ranks->size() > 1 ? 2 * 2 * std::int64_t{count} : 0);
}

TEST(Communicator, SumsInTheBackgroundShareScratch) {
  constexpr std::size_t count = 50000;
  std::vector<float> first = values_of<float>(ranks->rank(), count, 1);
  std::vector<float> second = values_of<float>(ranks->rank(), count, 2), scratch = scratch_for<float>(count);
  ranks->start_all_reduce_sum(tensor_of(first), tensor_of(scratch), DType::f32);
  ranks->start_all_reduce_sum(tensor_of(second), tensor_of(scratch), DType::f32);
  std::vector<double> third = values_of<double>(ranks->rank(), 2, 3);
  ranks->all_reduce_sum(third);  // comes after them, and waits for them
  EXPECT_EQ(first, expected_sum<float>(count, 1));
  EXPECT_EQ(second, expected_sum<float>(count, 2));
  EXPECT_EQ(third, expected_sum<double>(2, 3));
}

TEST(Communicator, AgreesOnOneValue) {
  EXPECT_EQ(from_first_rank(*ranks, 10.0 + ranks->rank()), 10);
  EXPECT_TRUE(on_any_rank(*ranks, ranks->rank() == ranks->size() - 1));
  EXPECT_FALSE(on_any_rank(*ranks, false));
}

TEST(Communicator, OneRankSpeaksOfAnErrorAndAllHaveIt) {
  int done = 0;
  succeed_together(*ranks, [&] { ++done; });
  EXPECT_EQ(done, 1);
  const int failing = ranks->size() / 2;  // and those behind it
  try {
    succeed_together(*ranks, [&] {
      if (ranks->rank() >= failing) fail(ExitCode::disk, "rank {}", ranks->rank());
    });
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::disk);
    EXPECT_EQ(error.what(), ranks->rank() == failing ? "rank " + std::to_string(failing) : "");
  }
}

TEST(Communicator, FindsTheRankThatDiffers) {
  const auto rank = static_cast<std::uint64_t>(ranks->rank());
  EXPECT_EQ(ranks_that_differ(*ranks, 0xfedcba9876543210u), std::vector<int>{});
  const int odd = ranks->size() - 1;
  const std::uint64_t value = 0xfedcba9876543210u + (ranks->rank() == odd && odd > 0 ? 1 : 0);
  EXPECT_EQ(ranks_that_differ(*ranks, value), odd > 0 ? std::vector<int>{odd} : std::vector<int>{});
  if (ranks->size() == 4) {
    EXPECT_EQ(ranks_that_differ(*ranks, rank == 0 ? 7 : 8), std::vector<int>{0});
  }
}

TEST(Communicator, SaysWhereItsRanksAre) {
  EXPECT_GE(ranks->threads(), ranks->size() > 1 ? 1 : 0);
  const std::string text = ranks->description();
  if (ranks->size() > 1) {
    EXPECT_EQ(text.rfind(std::to_string(ranks->size()) + " ranks: 0-", 0), 0u) << text;
  }
}

}  // namespace
}  // namespace flasheva

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const auto communicator = flasheva::make_communicator();
  flasheva::ranks = communicator.get();
  const int failed = RUN_ALL_TESTS();
  communicator->leave();
  if (flasheva::ranks->size() > 1) std::raise(SIGTERM);  // as a launcher does to those that end last
  return failed;
}
