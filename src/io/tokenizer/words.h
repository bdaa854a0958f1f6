// GPT-2's division of text into words, which byte pair encoding never merges across. Its regular expression:
//
//     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

namespace flasheva {

struct WordMatch;  // what PCRE2 needs for one match at a time

// Finds words one after another. Not for two threads at once.
class WordFinder {
 public:
  WordFinder();
  ~WordFinder();

  // Where the word that starts at `text[at]` ends; at < text.size(). The text must be well-formed UTF-8.
  std::size_t end_of_word(std::string_view text, std::size_t at);

 private:
  std::unique_ptr<WordMatch> match_;
};

// \w of Rust's regular expressions: letters, marks, decimal digits, connectors and joiners.
bool is_word_character(char32_t code);

}  // namespace flasheva
