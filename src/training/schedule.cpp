#include "src/training/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace flasheva {

double learning_rate(const ScheduleConfig& schedule, double lr, std::int64_t step, std::int64_t steps) {
  if (step < schedule.warmup)
    return lr * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup);
  const double lr_min = schedule.min_lr_ratio * lr;
  const auto after_warmup = static_cast<double>(std::max<std::int64_t>(1, steps - schedule.warmup));
  const double u = static_cast<double>(step - schedule.warmup) / after_warmup;
  switch (schedule.kind) {
    case ScheduleKind::cosine:
      return lr_min + (lr - lr_min) * (1 + std::cos(std::numbers::pi * u)) / 2;
    case ScheduleKind::linear:
      return lr - (lr - lr_min) * u;
    case ScheduleKind::constant:
      return lr;
  }
  return lr;
}

}  // namespace flasheva
