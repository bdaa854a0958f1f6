#include "src/io/tokenizer/cut_rule.h"

#include <algorithm>
#include <cstdint>

#include "src/core/text.h"
#include "src/io/tokenizer/unicode_ranges.h"
#include "src/io/tokenizer/utf8.h"

namespace flasheva {

namespace {

std::uint8_t byte_at(std::string_view text, std::size_t at) { return static_cast<std::uint8_t>(text[at]); }

constexpr std::string_view ascii_white_space = " \t\n\v\f\r";

bool is_ascii_white_space(char c) { return ascii_white_space.find(c) != std::string_view::npos; }

// Whether `text`, which may be malformed, ends with one of the white space characters beyond ASCII.
bool ends_with_wide_space(std::string_view text) {
  for (std::size_t bytes = 2; bytes <= 3 && bytes <= text.size(); ++bytes) {
    const std::string_view last = text.substr(text.size() - bytes);
    if (is_valid_utf8(last) && is_white_space(character_at(last, 0).code)) return true;
  }
  return false;
}

}  // namespace

CutRule::CutRule(bool add_prefix_space, std::span<const AddedToken> added) {
  after_.fill(true);
  for (const char space : ascii_white_space) {
    before_[static_cast<std::uint8_t>(space)] = space == ' ' || !add_prefix_space;
    after_[static_cast<std::uint8_t>(space)] = false;
  }
  for (const AddedToken& token : added) {
    for (std::size_t i = 1; i < token.content.size(); ++i)
      if (!is_ascii_white_space(token.content[i - 1])) before_[byte_at(token.content, i)] = false;
    if (token.single_word) before_[byte_at(token.content, 0)] = false;
    if (token.rstrip) {  // its last character may be what NFC makes of one beyond ASCII
      after_[byte_at(token.content, token.content.size() - 1)] = false;
      std::fill(after_.begin() + 0x80, after_.end(), false);
    }
  }
}

bool CutRule::may_cut(std::string_view text, std::size_t at) const {
  const std::uint8_t before = byte_at(text, at - 1);
  return before_[byte_at(text, at)] && after_[before] &&
         (before < 0x80 || !ends_with_wide_space(text.substr(0, at)));
}

std::size_t CutRule::piece(std::string_view text, std::size_t max_bytes) const {
  if (text.size() <= max_bytes) return text.size();
  for (std::size_t at = max_bytes; at > 0; --at)
    if (may_cut(text, at)) return at;
  for (std::size_t at = max_bytes + 1; at < text.size(); ++at)
    if (may_cut(text, at)) return at;
  return text.size();
}

}  // namespace flasheva
