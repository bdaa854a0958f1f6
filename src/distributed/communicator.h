// The ranks of a run. One rank is a communicator too: callers never branch on their number.
//
// All ranks call the same functions in the same order. A rank that dies, falls silent, or keeps the others
// waiting longer than their patience ends the run: every other prints one line that names it and leaves with
// exit code 5 (peer lost), wherever it is. A call therefore returns with its work done or not at all.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/tensor.h"
#include "src/core/error.h"

namespace flasheva {

// Elements begin .. end - 1.
struct Range {
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
};

// The share of a rank in a range of elements; the shares of all ranks, in their order, are the range.
inline Range piece_of_rank(Range range, int rank, int ranks) {
  return {range.begin + range.size() * rank / ranks, range.begin + range.size() * (rank + 1) / ranks};
}

class DeviceSums;  // device_sums.h

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Its number among the ranks on its machine: which GPU it takes.
  virtual int local_rank() const = 0;

  // This rank's share of the machine's cores, 0 for all of them: the ranks of one machine divide them.
  virtual int threads() const = 0;

  // The ranks, their machines and threads, in one line.
  virtual std::string description() = 0;

  // Every element becomes its sum over all ranks, added in the order of the ranks: the same bits on each.
  virtual void all_reduce_sum(std::span<double> values) = 0;

  // Sums of tensors on a GPU go this way from now on; `sums` is there as long as such sums are. Not called:
  // tensors are in host memory.
  virtual void sum_on_gpu(DeviceSums& sums) = 0;

  // Starts the same for a float32 or float64 tensor, beside whatever the caller does next; done after wait().
  // `scratch` is of the tensor's type and at least scratch_elements() long; sums that are under way together
  // may share it.
  //
  // Elements travel as `travel`: the tensor's own type, or bfloat16 for half the bytes of float32. Then every
  // rank's element, its own too, is rounded to bfloat16 before the sum, which is float32; the sum is rounded
  // again on its way to all ranks. Still the same bits on each. One rank alone rounds nothing.
  virtual void start_all_reduce_sum(Tensor tensor, Tensor scratch, DType travel) = 0;
  // Its first half: this rank's piece of the tensor is the sum afterwards, not rounded; the rest is as it
  // was.
  virtual void start_reduce_scatter_sum(Tensor tensor, Tensor scratch, DType travel) = 0;
  // Its second half: every rank's piece of the tensor is on all ranks afterwards.
  virtual void start_all_gather(Tensor tensor) = 0;
  virtual void wait() = 0;

  // How long another rank may give no sign of life (its threads stand still, its machine is gone). At first
  // without end. A process that ends is noticed at once.
  virtual void set_timeout(double seconds) = 0;
  // And how long one that this one waits for may do nothing: neither make the call nor finish a piece of work
  // (core/pieces_done.h). `during` says what ranks do now: "validation". At first without end.
  virtual void set_patience(double seconds, const std::string& during) = 0;

  // The last call, once a rank's work is done, well or not: returns when all ranks have made it. A
  // communicator destroyed without it counts as a rank that died.
  virtual void leave() = 0;
};

// The first of a rank's sequences in a global batch: rank r of N takes floor(rS/N) .. floor((r+1)S/N) - 1.
inline std::int64_t first_sequence_of_rank(std::int64_t sequences, int rank, int ranks) {
  return rank * sequences / ranks;
}

// Elements of scratch memory for sums of tensors up to `elements` over `ranks`.
inline std::int64_t scratch_elements(std::int64_t elements, int ranks) {
  return ranks == 1 ? 0 : elements + ranks;
}

// The ranks that mpirun or srun started this process with; one, if neither did.
// Error{usage}: it was started as one of several, and this build knows no MPI, or the launcher does not say
// how the processes find each other.
std::unique_ptr<Communicator> make_communicator();
std::unique_ptr<Communicator> make_single_communicator();

// Every rank's text, by rank, on every rank.
std::vector<std::string> from_all_ranks(Communicator& communicator, const std::string& text);

// Rank 0's value, on every rank.
double from_first_rank(Communicator& communicator, double value);

// True on every rank if it is on any.
bool on_any_rank(Communicator& communicator, bool value);

// The ranks whose value is not what most have (of two that differ, the second).
std::vector<int> ranks_that_differ(Communicator& communicator, std::uint64_t value);

// An error that every rank throws from the same call: one of them with its text, the others without, so that
// one line is printed. After any other, the ranks are no longer at the same call.
class SharedError : public Error {
 public:
  using Error::Error;
};

// What every rank calls with the same error: the first throws the text. SharedError.
[[noreturn]] void fail_together(const Communicator& communicator, ExitCode code, const std::string& message);

// Runs `work` on this rank and returns if it succeeded on all. SharedError where it ended in an Error on
// some, with exit code and text of the first of them.
void succeed_together(Communicator& communicator, const std::function<void()>& work);

}  // namespace flasheva
