// Tokens that are found in text before it is divided into words.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace flasheva {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool single_word = false;  // only where no word character stands beside it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and after it
  bool normalized = true;    // found in normalized text, else in the text as it is
  bool special = false;      // decodes to nothing
};

// A part of a text: a token, or text between tokens.
struct TextSection {
  static constexpr std::int32_t no_token = -1;
  std::size_t begin, end;
  std::int32_t token;
};

// Finds the longest of some tokens at every place, from left to right. Threads may share it.
class AddedTokens {
 public:
  explicit AddedTokens(std::vector<AddedToken> tokens);  // of different contents, none empty

  // Divides `text`, well-formed UTF-8, into `sections` (=), none of them empty.
  void divide(std::string_view text, std::vector<TextSection>& sections) const;
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  const AddedToken* longest_at(std::string_view text, std::size_t at) const;

  std::vector<AddedToken> tokens_;  // sorted by content
  // Of tokens_: those that start with byte b end where b + 1's start.
  std::array<std::size_t, 257> first_with_byte_{};
};

}  // namespace flasheva
