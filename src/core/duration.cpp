#include "src/core/duration.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

namespace flasheva {

std::string format_duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::min(seconds, 1e15));
  if (whole < 120) return fmt::format("{} s", whole);
  const std::int64_t minutes = whole / 60, hours = minutes / 60;
  if (minutes < 120) return fmt::format("{} min", minutes);
  if (hours < 48) return fmt::format("{} h {:02} min", hours, minutes % 60);
  return fmt::format("{} days", hours / 24);
}

}  // namespace flasheva
