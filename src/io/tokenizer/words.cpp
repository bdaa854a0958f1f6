#include "src/io/tokenizer/words.h"

#include <fmt/format.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>

#include <array>
#include <string>

#include "src/core/error.h"
#include "src/io/tokenizer/unicode_ranges.h"

namespace flasheva {

namespace {

// Ranges as they stand between the brackets of a character class.
std::string in_class(std::span<const CodePointRange> ranges) {
  std::string out;
  for (const CodePointRange& range : ranges)
    out += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", static_cast<unsigned>(range.first),
                       static_cast<unsigned>(range.last));
  return out;
}

std::string word_pattern() {
  const std::string space = in_class(white_space_ranges);
  const std::string letter = "\\p{L}" + in_class(newer_letter_ranges);
  const std::string number = "\\p{N}" + in_class(newer_digit_ranges) + in_class(newer_number_ranges);
  return fmt::format("'(?:s|t|re|ve|m|ll|d)| ?[{1}]+| ?[{2}]+| ?[^{0}{1}{2}]+|[{0}]+(?![^{0}])|[{0}]+", space,
                     letter, number);
}

// A compiled regular expression; threads may share it.
class Pattern {
 public:
  explicit Pattern(const std::string& pattern) {
    int error = 0;
    PCRE2_SIZE where = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP,
                          &error, &where, nullptr);
    if (code_ == nullptr) fail(ExitCode::other, "PCRE2 refuses a pattern at {}: error {}", where, error);
    pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);  // where it cannot, the pattern is interpreted
  }
  ~Pattern() { pcre2_code_free(code_); }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  // Whether it matches at or after text[at]; `data` then has where. The text must be well-formed UTF-8.
  bool matches(std::string_view text, std::size_t at, pcre2_match_data* data) const {
    const int result = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                   PCRE2_NO_UTF_CHECK, data, nullptr);
    if (result < 0 && result != PCRE2_ERROR_NOMATCH)
      fail(ExitCode::other, "PCRE2 gave up on a text of {} bytes: error {}", text.size(), result);
    return result >= 0;
  }

 private:
  pcre2_code* code_;
};

}  // namespace

struct WordMatch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  ~WordMatch() { pcre2_match_data_free(data); }
};

WordFinder::WordFinder() : match_(std::make_unique<WordMatch>()) {}
WordFinder::~WordFinder() = default;

std::size_t WordFinder::end_of_word(std::string_view text, std::size_t at) {
  static const Pattern pattern(word_pattern());
  pattern.matches(text, at, match_->data);
  return pcre2_get_ovector_pointer(match_->data)[1];
}

bool is_word_character(char32_t code) {
  static const Pattern pattern("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}" +
                               in_class(newer_letter_ranges) + in_class(newer_digit_ranges) +
                               in_class(newer_mark_ranges) + "]");
  std::array<utf8proc_uint8_t, 4> bytes;
  const auto count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), bytes.data());
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(count));
  return pattern.matches(text, 0, WordMatch().data);
}

}  // namespace flasheva
