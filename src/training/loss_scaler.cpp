#include "src/training/loss_scaler.h"

#include <algorithm>

namespace flasheva {

LossScaler::LossScaler(const LossScaleConfig& config) : config_(config) { state_.scale = config.initial; }

void LossScaler::finite() {
  if (++state_.finite_steps < config_.growth_interval) return;
  state_ = {std::min(2 * state_.scale, LossScaleConfig::largest), 0, 0};
}

bool LossScaler::overflow() {
  state_.finite_steps = 0;
  if (++state_.overflows < config_.hysteresis) return true;
  if (state_.scale / 2 < config_.minimum) return false;
  state_.scale /= 2;
  return true;
}

}  // namespace flasheva
