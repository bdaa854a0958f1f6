// The order in which a run reads the sequences of its training data. Stateless: the number of a sequence
// within the run is all that a resumed run, or another rank, needs to know.
#pragma once

#include <cstdint>

namespace flasheva {

class SequenceOrder {
 public:
  // `sequences`: whole sequences of the data set, at least 1.
  SequenceOrder(std::int64_t sequences, bool shuffle, std::uint64_t seed);

  // The data set's sequence that stands at `position`, counted over the whole run: epoch position /
  // sequences. In order, or where shuffled by a permutation of (seed, epoch), so every epoch reads each
  // sequence once.
  std::int64_t operator()(std::int64_t position) const;

 private:
  std::uint64_t sequences_;
  bool shuffle_;
  std::uint64_t seed_;
  int half_bits_;  // the permutation's domain is the numbers of 2 * half_bits_ bits
};

}  // namespace flasheva
