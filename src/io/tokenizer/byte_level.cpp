#include "src/io/tokenizer/byte_level.h"

#include <algorithm>

#include "src/io/tokenizer/utf8.h"

namespace flasheva {

namespace {

constexpr char32_t first_stand_in = 0x100;  // of the bytes that are not printable

constexpr bool stands_for_itself(char32_t byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
}

std::array<std::string, byte_values> make_byte_symbols() {
  std::array<std::string, byte_values> symbols;
  char32_t next = first_stand_in;
  for (char32_t byte = 0; byte < byte_values; ++byte) {
    const char32_t character = stands_for_itself(byte) ? byte : next++;
    if (character >= 0x80) symbols[byte] += static_cast<char>(0xc0 | character >> 6);
    symbols[byte] += static_cast<char>(character < 0x80 ? character : 0x80 | (character & 0x3f));
  }
  return symbols;
}

std::string make_stand_ins() {
  std::string bytes;
  for (char32_t byte = 0; byte < byte_values; ++byte)
    if (!stands_for_itself(byte)) bytes += static_cast<char>(byte);
  return bytes;
}

}  // namespace

const std::array<std::string, byte_values>& byte_symbols() {
  static const std::array<std::string, byte_values> symbols = make_byte_symbols();
  return symbols;
}

std::optional<std::string> bytes_of_symbols(std::string_view token) {
  static const std::string stand_ins = make_stand_ins();
  std::string bytes;
  for (std::size_t at = 0; at < token.size();) {
    const Character character = character_at(token, at);
    at += character.bytes;
    if (stands_for_itself(character.code))
      bytes += static_cast<char>(character.code);
    else if (character.code >= first_stand_in && character.code < first_stand_in + stand_ins.size())
      bytes += stand_ins[character.code - first_stand_in];
    else
      return std::nullopt;
  }
  return bytes;
}

}  // namespace flasheva
