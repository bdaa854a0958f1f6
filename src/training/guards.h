// Watches a run for what would ruin it: losses and gradients that are not finite, losses that leap, ranks
// whose weights have drifted apart. All ranks see the same figures and decide the same.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/config/config.h"
#include "src/distributed/communicator.h"
#include "src/training/spike_detector.h"
#include "src/training/trainer.h"

namespace flasheva {

class Guards {
 public:
  // What a run that goes on bitwise needs.
  struct State {
    std::vector<double> losses;  // by which the next are judged
    std::int64_t skips_in_a_row = 0;
  };

  Guards(const GuardsSection& config, Communicator& communicator);

  // Whether a step whose figures are finite may change the weights: not if its loss leaps, unless leaps are
  // only logged.
  bool accepts(const StepResult& result) const;

  // What to say of a step that was judged, "" for an ordinary one. Error{numeric} after more than max_skips
  // steps without an update in a row, where overflows that only lower the loss scale do not count, and where
  // an overflow finds it at its minimum; `where` names phase and step.
  std::string judge(const StepResult& result, const std::string& where);

  // Whether the last judged step asks to go back to the last checkpoint.
  bool wants_roll_back() const { return wants_roll_back_; }
  void rolled_back();

  State state() const { return {{spikes_.known().begin(), spikes_.known().end()}, skips_in_a_row_}; }
  void restore(const State& state);

  // Error{numeric} that names the ranks whose weights differ from the others'.
  void compare_weights(const Trainer& trainer, const std::string& where) const;

 private:
  std::string judge_overflow(const StepResult& result, const std::string& where) const;

  const GuardsSection& config_;
  Communicator& communicator_;
  SpikeDetector spikes_;
  std::int64_t skips_in_a_row_ = 0;
  bool wants_roll_back_ = false;
};

}  // namespace flasheva
