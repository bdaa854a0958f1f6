#include "src/io/tokenizer/added_tokens.h"

#include <algorithm>

#include "src/io/tokenizer/unicode_ranges.h"
#include "src/io/tokenizer/utf8.h"
#include "src/io/tokenizer/words.h"

namespace flasheva {

namespace {

std::uint8_t byte_at(std::string_view text, std::size_t at) { return static_cast<std::uint8_t>(text[at]); }

bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
  const bool word_before = begin > 0 && is_word_character(character_before(text, begin).code);
  const bool word_after = end < text.size() && is_word_character(character_at(text, end).code);
  return !word_before && !word_after;
}

std::size_t skip_white_space_back(std::string_view text, std::size_t at) {
  while (at > 0) {
    const Character before = character_before(text, at);
    if (!is_white_space(before.code)) break;
    at -= before.bytes;
  }
  return at;
}

std::size_t skip_white_space(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const Character character = character_at(text, at);
    if (!is_white_space(character.code)) break;
    at += character.bytes;
  }
  return at;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.content < b.content; });
  for (const AddedToken& token : tokens_) ++first_with_byte_[byte_at(token.content, 0) + std::size_t{1}];
  for (std::size_t byte = 1; byte < first_with_byte_.size(); ++byte)
    first_with_byte_[byte] += first_with_byte_[byte - 1];
}

// Narrows the sorted tokens byte by byte to those that the text starts with; shorter ones come first.
const AddedToken* AddedTokens::longest_at(std::string_view text, std::size_t at) const {
  auto low = tokens_.begin() + static_cast<std::ptrdiff_t>(first_with_byte_[byte_at(text, at)]);
  auto high =
      tokens_.begin() + static_cast<std::ptrdiff_t>(first_with_byte_[byte_at(text, at) + std::size_t{1}]);
  const AddedToken* longest = nullptr;
  for (std::size_t length = 1; low != high; ++length) {
    if (low->content.size() == length) longest = &*low++;
    if (low == high || at + length == text.size()) break;
    const std::uint8_t next = byte_at(text, at + length);
    low = std::partition_point(low, high,
                               [&](const AddedToken& t) { return byte_at(t.content, length) < next; });
    high = std::partition_point(low, high,
                                [&](const AddedToken& t) { return byte_at(t.content, length) == next; });
  }
  return longest;
}

// A token found where rstrip has gone already still counts, as in `tokenizers`; so `done` may go back.
void AddedTokens::divide(std::string_view text, std::vector<TextSection>& sections) const {
  sections.clear();
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    const AddedToken* token = longest_at(text, at);
    if (token == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + token->content.size();
    at = end;
    if (token->single_word && !stands_alone(text, begin, end)) continue;
    if (token->lstrip) begin = std::max(skip_white_space_back(text, begin), done);
    if (token->rstrip) end = skip_white_space(text, end);
    if (done < begin) sections.push_back({done, begin, TextSection::no_token});
    if (begin < end) sections.push_back({begin, end, token->id});
    done = end;
  }
  if (done != text.size()) sections.push_back({done, text.size(), TextSection::no_token});
}

}  // namespace flasheva
