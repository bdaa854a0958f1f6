#include "src/io/tokenizer/utf8.h"

#include <algorithm>
#include <cstdint>

#include "src/core/text.h"

namespace flasheva {

namespace {

std::uint8_t byte_at(std::string_view text, std::size_t at) { return static_cast<std::uint8_t>(text[at]); }

bool is_continuation(std::uint8_t byte) { return (byte & 0xc0) == 0x80; }

// Bytes of the character that starts with `lead`, 1 for what can start none.
std::size_t length_of(std::uint8_t lead) {
  return lead < 0xc2 || lead > 0xf4 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

// Whether `second` may follow `lead` (the Unicode Standard, table 3-7).
bool may_follow(std::uint8_t lead, std::uint8_t second) {
  const std::uint8_t least = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const std::uint8_t most = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  return second >= least && second <= most;
}

// Bytes from the start of `text` that are one character, whole or cut short.
std::size_t part_length(std::string_view text) {
  const std::size_t wanted = std::min(length_of(byte_at(text, 0)), text.size());
  if (wanted < 2 || !may_follow(byte_at(text, 0), byte_at(text, 1))) return 1;
  std::size_t length = 2;
  while (length < wanted && is_continuation(byte_at(text, length))) ++length;
  return length;
}

}  // namespace

Character character_at(std::string_view text, std::size_t at) {
  const std::uint8_t lead = byte_at(text, at);
  if (lead < 0x80) return {lead, 1};
  const std::size_t bytes = length_of(lead);
  char32_t code = lead & (0x7fu >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) code = code << 6 | (byte_at(text, at + i) & 0x3fu);
  return {code, bytes};
}

Character character_before(std::string_view text, std::size_t at) {
  do --at;
  while (at > 0 && is_continuation(byte_at(text, at)));
  return character_at(text, at);
}

std::string_view well_formed(std::string_view text, std::string& buffer) {
  if (is_valid_utf8(text)) return text;
  buffer.clear();
  while (!text.empty()) {
    const std::string_view part = text.substr(0, part_length(text));
    const bool whole =
        byte_at(part, 0) < 0x80 || (part.size() > 1 && part.size() == length_of(byte_at(part, 0)));
    buffer += whole ? part : "\xef\xbf\xbd";
    text.remove_prefix(part.size());
  }
  return buffer;
}

}  // namespace flasheva
