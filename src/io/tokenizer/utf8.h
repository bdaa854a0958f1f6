// UTF-8 text, character by character.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace flasheva {

struct Character {
  char32_t code;
  std::size_t bytes;
};

// The character that starts at `text[at]`, and the one that ends before `text[at]`. The text must be
// well-formed UTF-8 and the character be there.
Character character_at(std::string_view text, std::size_t at);
Character character_before(std::string_view text, std::size_t at);

// `text` itself where it is well-formed UTF-8; else a copy in `buffer` with U+FFFD for every part of a
// character that is cut short and every other byte that fits nowhere, as Python's errors="replace" gives it.
std::string_view well_formed(std::string_view text, std::string& buffer);

}  // namespace flasheva
