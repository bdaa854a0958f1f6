// Dynamic loss scaling for float16 (Micikevicius et al., "Mixed precision training", ICLR 2018): the loss is
// multiplied by a power of two, so that small gradients do not vanish among float16's subnormals on their way
// back, and what comes out is divided by it. The scale is as large as the gradients allow:
//
//     gradients finite      `growth_interval` of them in a row double the scale and forgive earlier overflows
//     gradients overflow    the step is passed over; from the `hysteresis`-th since the last doubling on,
//                           each halves the scale
//     floor                 a halving that would lead below `minimum` is an error: the gradients are at fault
#pragma once

#include <cstdint>

#include "src/config/config.h"

namespace flasheva {

class LossScaler {
 public:
  // What a run that goes on bitwise needs.
  struct State {
    double scale = 1;
    std::int64_t finite_steps = 0;  // since the last doubling or overflow
    std::int64_t overflows = 0;     // since the last doubling
  };

  explicit LossScaler(const LossScaleConfig& config);

  double scale() const { return state_.scale; }

  // After a step whose gradients were finite.
  void finite();
  // After a step whose gradients overflowed. False where the scale should fall below the minimum; it stays.
  bool overflow();

  const State& state() const { return state_; }
  void restore(const State& state) { state_ = state; }

 private:
  LossScaleConfig config_;
  State state_;
};

}  // namespace flasheva
