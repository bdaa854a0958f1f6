// The text of a sequence that grows token by token: where it ends at a stop string, and how much of it can be
// shown already.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace flasheva {

class GeneratedText {
 public:
  // `stop`: none of them empty.
  explicit GeneratedText(const std::vector<std::string>& stop) : stop_(stop) {}

  // Appends the bytes of a token. True once the text holds a stop string: it then ends before the first.
  bool append(std::string_view bytes);

  const std::string& text() const { return text_; }
  // Bytes from the beginning that will stay whatever follows: without an unfinished UTF-8 character, and
  // without what may be the beginning of a stop string.
  std::size_t settled_bytes() const;

 private:
  const std::vector<std::string>& stop_;
  std::string text_;
};

}  // namespace flasheva
