// What the number behind a flag must be. CLI11's own checks take nan for a number in any range and write
// bounds of three hundred digits.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>

#include "src/config/numbers.h"

namespace flasheva {

// Decimal digits alone: neither 0x10, 010 nor 1e3.
CLI::Validator integer_from(std::int64_t low, std::int64_t high = std::numeric_limits<std::int64_t>::max());

// More than any machine has; far more cannot be started.
constexpr std::int64_t most_threads = 4096;

CLI::Validator number_that_is(const NumberRange& range);

}  // namespace flasheva
