// Where the time of a step goes, operation by operation.
#pragma once

#include <nlohmann/json.hpp>

#include "kernels/timed_ops.h"

namespace flasheva {

// The mean of `steps` steps, slowest operation first.
nlohmann::ordered_json operations_of(const TimedOps& timed, int steps);
void print_operations(const nlohmann::ordered_json& operations, double step_seconds);

}  // namespace flasheva
