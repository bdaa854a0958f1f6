// Small helpers on text that messages need.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace flasheva {

// The candidate nearest to `name` by edit distance, or "" where none is near enough to be meant.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

// True for well-formed UTF-8: shortest forms, no surrogates, at most U+10FFFF.
bool is_valid_utf8(std::string_view text);

// The text with control characters and invalid bytes escaped, cut to `max_bytes`: safe to print on one line
// of an error message, wherever the text came from.
std::string printable(std::string_view text, std::size_t max_bytes = 80);

// 1536 -> "1.5 KiB".
std::string format_bytes(std::size_t bytes);

}  // namespace flasheva
