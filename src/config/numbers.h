// Numbers as a configuration and the command line write them.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

namespace flasheva {

// Real numbers from low to high, the ends included unless said.
struct NumberRange {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool without_low = false, without_high = false;
  const char* text = "a number";  // what messages say the value must be

  // In float32 as well, in which most of them are used: what becomes 0 or 1 there is impossible where those
  // are.
  bool contains(double value) const {
    return holds(value) && holds(static_cast<double>(static_cast<float>(value)));
  }

 private:
  bool holds(double value) const {
    return (without_low ? value > low : value >= low) && (without_high ? value < high : value <= high);
  }
};
constexpr NumberRange above_zero = {.low = 0, .without_low = true, .text = "above 0"};
constexpr NumberRange at_least_zero = {.low = 0, .text = "at least 0"};
constexpr NumberRange from_zero_to_one = {.low = 0, .high = 1, .text = "from 0 to 1"};
constexpr NumberRange from_zero_below_one = {
    .low = 0, .high = 1, .without_high = true, .text = "at least 0 and below 1"};
constexpr NumberRange above_zero_to_one = {
    .low = 0, .high = 1, .without_low = true, .text = "above 0 and at most 1"};

// Steps, tokens and sequences are counted in 32 bits here and there.
constexpr std::int64_t max_integer = std::numeric_limits<std::int32_t>::max();

// The whole of `text` as a number of type T; nothing where it is none, or beyond T.
template <class T>
std::optional<T> number_from(const std::string& text) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

// The same, finite in float32 too.
inline std::optional<double> finite_number_from(const std::string& text) {
  const std::optional<double> value = number_from<double>(text);
  return value && std::isfinite(static_cast<float>(*value)) ? value : std::nullopt;
}

// Digits alone, perhaps behind a minus.
inline bool looks_like_integer(const std::string& text) {
  const std::size_t digits = text.starts_with('-') ? 1 : 0;
  return text.size() > digits && text.find_first_not_of("0123456789", digits) == std::string::npos;
}

}  // namespace flasheva
