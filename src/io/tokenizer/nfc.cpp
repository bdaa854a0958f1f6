// NFC changes text only around characters that decompose, move (combining class above 0) or compose with what
// stands before. All others are `stable`: nothing crosses the place before one (UAX #15, section 9.1). So
// stable text is copied, and each stretch of others is normalized with the stable character before it.
#include "src/io/tokenizer/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "kernels/check.h"
#include "src/io/tokenizer/unicode_ranges.h"
#include "src/io/tokenizer/utf8.h"

namespace flasheva {

namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

constexpr char32_t table_size = 0x30000;   // beyond it utf8proc is always asked
constexpr std::uint8_t first_lead = 0xcc;  // of U+0300: all characters below are stable

enum class Kind : std::uint8_t {
  stable,
  inert,  // stable, and composes with nothing that follows either
  other,
};

void append_decomposition(char32_t code, CodePoints& out) {
  std::array<utf8proc_int32_t, 32> parts;
  int boundary_class = 0;
  const utf8proc_ssize_t count = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(code), parts.data(), parts.size(),
      static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE), &boundary_class);
  FLASHEVA_CHECK(count > 0 && count <= static_cast<utf8proc_ssize_t>(parts.size()));
  out.insert(out.end(), parts.begin(), parts.begin() + count);
}

int combining_class(utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; }

// Sorts each run of combining characters by class. The time of utf8proc's own sort is quadratic in its
// length.
void reorder(CodePoints& codes) {
  const auto is_starter = [](utf8proc_int32_t code) { return combining_class(code) == 0; };
  for (auto begin = codes.begin(); begin != codes.end();) {
    begin = std::find_if_not(begin, codes.end(), is_starter);
    const auto end = std::find_if(begin, codes.end(), is_starter);
    std::stable_sort(begin, end, [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

void compose(CodePoints& codes) {
  const utf8proc_ssize_t count =
      utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  codes.resize(static_cast<std::size_t>(count));
}

std::vector<Kind> make_kinds() {
  std::vector<Kind> kinds(table_size, Kind::stable);
  CodePoints codes;
  for (char32_t code = 0; code < table_size; ++code) {
    codes.clear();
    append_decomposition(code, codes);
    const bool moves = combining_class(static_cast<utf8proc_int32_t>(code)) != 0;
    if (moves || codes.size() > 1 || codes[0] != static_cast<utf8proc_int32_t>(code)) {
      const utf8proc_int32_t last = codes.back();  // of a composed character: what composes with the rest
      compose(codes);
      const bool composed = codes.size() == 1 && codes[0] == static_cast<utf8proc_int32_t>(code);
      if (moves || !composed) kinds[code] = Kind::other;
      if (composed && last < static_cast<utf8proc_int32_t>(table_size)) kinds[last] = Kind::other;
    }
  }
  for (const CodePointRange& range : inert_mark_ranges)
    std::fill(kinds.begin() + range.first, kinds.begin() + range.last + 1, Kind::inert);
  return kinds;
}

Kind kind_of(char32_t code) {
  static const std::vector<Kind> kinds = make_kinds();
  return code < table_size ? kinds[code] : Kind::other;
}

// The first character at or after `at` that is not stable; text.size() if there is none.
std::size_t first_other(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    if (static_cast<std::uint8_t>(text[at]) < first_lead) {
      ++at;
      continue;
    }
    const Character character = character_at(text, at);
    if (kind_of(character.code) == Kind::other) break;
    at += character.bytes;
  }
  return at;
}

// The end of the characters from `at` on that are not stable.
std::size_t end_of_others(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const Character character = character_at(text, at);
    if (kind_of(character.code) != Kind::other) break;
    at += character.bytes;
  }
  return at;
}

void append_normalized(std::string_view stretch, std::string& out) {
  CodePoints codes;
  for (std::size_t at = 0; at < stretch.size();) {
    const Character character = character_at(stretch, at);
    append_decomposition(character.code, codes);
    at += character.bytes;
  }
  reorder(codes);
  compose(codes);
  for (const utf8proc_int32_t code : codes) {
    std::array<utf8proc_uint8_t, 4> bytes;
    const auto count = static_cast<std::size_t>(utf8proc_encode_char(code, bytes.data()));
    out.append(reinterpret_cast<const char*>(bytes.data()), count);
  }
}

}  // namespace

std::string_view nfc(std::string_view text, std::string& buffer) {
  std::size_t other = first_other(text, 0);
  if (other == text.size()) return text;
  buffer.clear();
  std::size_t copied = 0;
  while (other < text.size()) {
    std::size_t begin = other;
    if (begin > copied) {
      const Character before = character_before(text, begin);
      if (kind_of(before.code) == Kind::stable) begin -= before.bytes;
    }
    const std::size_t end = end_of_others(text, other);
    buffer.append(text, copied, begin - copied);
    append_normalized(text.substr(begin, end - begin), buffer);
    copied = end;
    other = first_other(text, end);
  }
  return buffer.append(text, copied);
}

}  // namespace flasheva
