// Where text may be cut so that both parts, encoded apart, give the ids of the whole: before an ASCII white
// space character c that follows a character which is not white space.
//
// - NFC: c neither moves nor composes, so nothing crosses the place before it.
// - Words: no word goes on from what is not white space into white space, and the only look-ahead, \s+(?!\S),
//   stands at the end of white space, not before it.
// - A prefix space is added to what does not start with a space: where that is done, c must be a space.
// - Added tokens: none may lie across the cut, so c must not follow another character within a content; one
//   with rstrip, which would take c along, must not end before the cut; one with single_word, which looks at
//   the character before it, must not start with c.
#pragma once

#include <array>
#include <span>
#include <string_view>

#include "src/io/tokenizer/added_tokens.h"

namespace flasheva {

class CutRule {
 public:
  CutRule(bool add_prefix_space, std::span<const AddedToken> added);

  // Bytes of the longest start of `text` up to `max_bytes` that may be cut off; where there is none, of the
  // shortest longer one.
  std::size_t piece(std::string_view text, std::size_t max_bytes) const;

 private:
  bool may_cut(std::string_view text, std::size_t at) const;

  std::array<bool, 256> before_{};  // bytes that a cut may be before
  std::array<bool, 256> after_{};   // and last bytes of characters that it may be after
};

}  // namespace flasheva
