// The ranks of a run. One rank is a communicator too: callers never branch on their number.
#pragma once

#include <memory>
#include <span>

#include "kernels/tensor.h"

namespace flasheva {

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Every element becomes its sum over all ranks; the same bits on each. Called by all ranks in the same
  // order.
  virtual void all_reduce_sum(std::span<double> values) = 0;
  virtual void all_reduce_sum(Tensor tensor) = 0;  // float32 or float64
};

// The first of a rank's sequences in a global batch: rank r of N takes floor(rS/N) .. floor((r+1)S/N) - 1.
inline std::int64_t first_sequence_of_rank(std::int64_t sequences, int rank, int ranks) {
  return rank * sequences / ranks;
}

std::unique_ptr<Communicator> make_single_communicator();

}  // namespace flasheva
