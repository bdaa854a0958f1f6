#include "src/io/sequence_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace flasheva {
namespace {

std::vector<std::int64_t> epoch_of(const SequenceOrder& order, std::int64_t sequences, std::int64_t epoch) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(sequences));
  for (std::int64_t i = 0; i < sequences; ++i)
    out[static_cast<std::size_t>(i)] = order(epoch * sequences + i);
  return out;
}

std::vector<std::int64_t> in_order(std::int64_t sequences) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(sequences));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

TEST(SequenceOrder, UnshuffledStartsAgainAfterTheLast) {
  const SequenceOrder order(5, false, 1234);
  EXPECT_EQ(epoch_of(order, 5, 0), in_order(5));
  EXPECT_EQ(epoch_of(order, 5, 3), in_order(5));
}

TEST(SequenceOrder, EveryEpochIsAPermutation) {
  for (const std::int64_t sequences : {1, 2, 3, 4, 5, 15, 16, 17, 1000, 4096, 4097}) {
    const SequenceOrder order(sequences, true, 42);
    for (const std::int64_t epoch : {0, 1, 2, 1000000}) {
      std::vector<std::int64_t> read = epoch_of(order, sequences, epoch);
      std::sort(read.begin(), read.end());
      EXPECT_EQ(read, in_order(sequences)) << sequences << " sequences, epoch " << epoch;
    }
  }
}

TEST(SequenceOrder, EpochsAndSeedsDiffer) {
  const SequenceOrder order(1000, true, 1), other(1000, true, 2), same(1000, true, 1);
  EXPECT_NE(epoch_of(order, 1000, 0), in_order(1000));
  EXPECT_NE(epoch_of(order, 1000, 0), epoch_of(order, 1000, 1));
  EXPECT_NE(epoch_of(order, 1000, 0), epoch_of(other, 1000, 0));
  EXPECT_NE(epoch_of(order, 1000, 1), epoch_of(other, 1000, 0));  // seed + epoch must not stand for both
  EXPECT_EQ(epoch_of(order, 1000, 7), epoch_of(same, 1000, 7));
}

// A checkpoint keeps only the number of the next sequence: the order must not change between releases.
TEST(SequenceOrder, IsPinned) {
  EXPECT_EQ(epoch_of(SequenceOrder(10, true, 1234), 10, 0),
            (std::vector<std::int64_t>{5, 4, 2, 3, 8, 9, 0, 6, 1, 7}));
}

// Over many epochs every sequence stands equally often in every place. Of 20 x 20 counts with fixed sums,
// chi-square has 19 x 19 = 361 degrees of freedom: mean 361, standard deviation sqrt(2 * 361) = 26.9; five of
// them are allowed.
TEST(SequenceOrder, PlacesAreUniform) {
  constexpr std::int64_t sequences = 20, epochs = 20000;
  std::vector<double> counts(sequences * sequences);
  const SequenceOrder order(sequences, true, 99);
  for (std::int64_t position = 0; position < sequences * epochs; ++position)
    ++counts[static_cast<std::size_t>(position % sequences * sequences + order(position))];
  constexpr double expected = static_cast<double>(epochs) / sequences;
  double chi_square = 0;
  for (const double count : counts) chi_square += (count - expected) * (count - expected) / expected;
  EXPECT_LT(std::abs(chi_square - 361), 5 * 26.9);
}

// Neighbours in the data set are not neighbours in the order: a pair i, i + 1 is read in succession with
// probability 1/n, so of n pairs one in the mean (Poisson); more than 12 has probability 6e-11.
TEST(SequenceOrder, SeparatesNeighbours) {
  constexpr std::int64_t sequences = 100000;
  const std::vector<std::int64_t> read = epoch_of(SequenceOrder(sequences, true, 5), sequences, 0);
  int successions = 0;
  for (std::size_t i = 1; i < read.size(); ++i) successions += read[i] == read[i - 1] + 1;
  EXPECT_LE(successions, 12);
}

TEST(SequenceOrder, HoldsForHugeDataSets) {
  constexpr std::int64_t sequences = (std::int64_t{1} << 40) + 3;
  const SequenceOrder order(sequences, true, 5);
  for (const std::int64_t position : {std::int64_t{0}, sequences - 1, sequences, 1000 * sequences + 17}) {
    EXPECT_GE(order(position), 0);
    EXPECT_LT(order(position), sequences);
  }
}

TEST(SequenceOrder, RefusesAnEmptyDataSet) { EXPECT_THROW(SequenceOrder(0, true, 1), std::logic_error); }

}  // namespace
}  // namespace flasheva
