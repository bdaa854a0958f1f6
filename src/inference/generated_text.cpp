#include "src/inference/generated_text.h"

#include <algorithm>

namespace flasheva {

namespace {

// Bytes at the end of the text that begin a UTF-8 character which is not complete.
std::size_t unfinished_character(std::string_view text) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0u) == 0x80u) continue;  // inside a character
    const std::size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

}  // namespace

bool GeneratedText::append(std::string_view bytes) {
  const std::size_t before = text_.size();
  text_ += bytes;
  std::size_t first = std::string::npos;
  for (const std::string& stop : stop_) {  // it ends in the new bytes
    const std::size_t from = before >= stop.size() ? before - stop.size() + 1 : 0;
    first = std::min(first, text_.find(stop, from));
  }
  if (first == std::string::npos) return false;
  text_.resize(first);
  return true;
}

std::size_t GeneratedText::settled_bytes() const {
  std::size_t held = unfinished_character(text_);
  for (const std::string& stop : stop_)
    for (std::size_t n = std::min(stop.size() - 1, text_.size()); n > held; --n)
      if (text_.ends_with(std::string_view(stop).substr(0, n))) held = n;
  return text_.size() - held;
}

}  // namespace flasheva
