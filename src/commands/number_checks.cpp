#include "src/commands/number_checks.h"

#include <fmt/format.h>

#include <string>

#include "src/core/text.h"

namespace flasheva {

CLI::Validator integer_from(std::int64_t low, std::int64_t high) {
  const bool bounded = high != std::numeric_limits<std::int64_t>::max();
  const std::string range = fmt::format("from {} {}", low, bounded ? fmt::format("to {}", high) : "on");
  const auto check = [=](const std::string& text) -> std::string {
    const bool octal = text.size() > 1 && text.starts_with('0');  // to CLI11
    const bool decimal = looks_like_integer(text) && !octal;
    const std::int64_t value = decimal ? number_from<std::int64_t>(text).value_or(low - 1) : low - 1;
    if (low <= value && value <= high) return "";
    return fmt::format("expected an integer {}, found '{}'", range, printable(text));
  };
  return {check, ""};
}

CLI::Validator number_that_is(const NumberRange& range) {
  const auto check = [=](const std::string& text) -> std::string {
    const std::optional<double> value = finite_number_from(text);
    if (value && range.contains(*value)) return "";
    return fmt::format("expected a number {}, found '{}'", range.text, printable(text));
  };
  return {check, ""};
}

}  // namespace flasheva
