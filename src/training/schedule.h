// The learning rate at each step of a phase.
#pragma once

#include <cstdint>

#include "src/config/config.h"

namespace flasheva {

// lr (t+1)/warmup while t < warmup; then, with u = (t - warmup) / max(1, steps - warmup) and lr_min =
// min_lr_ratio lr:
//     cosine    lr_min + (lr - lr_min) (1 + cos(pi u)) / 2
//     linear    lr - (lr - lr_min) u
//     constant  lr
// `step` t counts from 0.
double learning_rate(const ScheduleConfig& schedule, double lr, std::int64_t step, std::int64_t steps);

}  // namespace flasheva
