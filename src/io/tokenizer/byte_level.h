// GPT-2's byte level: tokens are written with one printable character, a symbol, for every byte.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace flasheva {

inline constexpr std::size_t byte_values = 256;

// The symbol of every byte, in UTF-8: printable Latin-1 characters stand for themselves, the others, in
// order, are U+0100, U+0101, ...
const std::array<std::string, byte_values>& byte_symbols();

// The bytes that `token`, well-formed UTF-8, writes with symbols; nothing where a character of it is none.
std::optional<std::string> bytes_of_symbols(std::string_view token);

}  // namespace flasheva
