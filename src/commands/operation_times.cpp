#include "src/commands/operation_times.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace flasheva {

nlohmann::ordered_json operations_of(const TimedOps& timed, int steps) {
  std::vector<std::pair<std::string, TimedOps::Total>> totals(timed.totals().begin(), timed.totals().end());
  std::sort(totals.begin(), totals.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  const auto rate = [](double amount, double seconds) { return seconds > 0 ? amount / seconds : 0; };
  auto operations = nlohmann::ordered_json::array();
  for (const auto& [name, total] : totals)
    operations.push_back({{"operation", name},
                          {"calls", static_cast<double>(total.calls) / steps},
                          {"seconds", total.seconds / steps},
                          {"bytes", total.bytes / steps},
                          {"flops", total.flops / steps},
                          {"bytes_per_second", rate(total.bytes, total.seconds)},
                          {"flops_per_second", rate(total.flops, total.seconds)}});
  return operations;
}

void print_operations(const nlohmann::ordered_json& operations, double step_seconds) {
  fmt::print("\n{:<46} {:>6} {:>9} {:>7} {:>8} {:>8}\n", "operation, of a step", "calls", "ms", "share",
             "GFLOP/s", "GB/s");
  for (const auto& row : operations) {
    const double seconds = row["seconds"], flops = row["flops_per_second"], bytes = row["bytes_per_second"];
    fmt::print("{:<46} {:>6} {:>9.2f} {:>6.1f}% {:>8} {:>8.1f}\n", row["operation"].get<std::string>(),
               row["calls"].get<double>(), seconds * 1e3, 100 * seconds / step_seconds,
               flops > 0 ? fmt::format("{:.1f}", flops / 1e9) : "", bytes / 1e9);
  }
}

}  // namespace flasheva
