// Byte pair encoding (Sennrich et al., 2016) of words, byte level: a word starts as its bytes' tokens; then,
// again and again, the neighbours whose merge comes first in the list are merged, the leftmost of several,
// until no merge is left.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/io/tokenizer/byte_level.h"

namespace flasheva {

struct Merge {
  std::int32_t left, right, result;  // token ids
};

// The rank (place in the list) of a merge by its two tokens: a hash table with open addressing.
class MergeRanks {
 public:
  static constexpr std::uint32_t none = ~std::uint32_t{0};

  explicit MergeRanks(const std::vector<Merge>& merges);  // of equal pairs the last counts
  std::uint32_t find(std::int32_t left, std::int32_t right) const {
    return slots_[slot_of(key_of(left, right))].rank;
  }

 private:
  struct Slot {
    std::uint64_t key = 0;
    std::uint32_t rank = none;
  };
  static std::uint64_t key_of(std::int32_t left, std::int32_t right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }
  std::size_t slot_of(std::uint64_t key) const;  // the key's own, or the empty one where it belongs

  std::vector<Slot> slots_;
  int shift_;
};

// The tokens of short words met before; a newer word takes the place of an older one with the same hash.
class WordCache {
 public:
  static constexpr std::size_t max_bytes = 22, max_tokens = 10;

  struct Entry {
    std::uint8_t bytes = 0, tokens = 0;
    std::array<char, max_bytes> word;
    std::array<std::int32_t, max_tokens> ids;
  };
  // The entry that `word`, 1 to max_bytes long, has or would have.
  Entry& entry_of(std::string_view word);

 private:
  std::vector<Entry> entries_ = std::vector<Entry>(std::size_t{1} << 15);  // 2 MiB
};

class Bpe {
 public:
  // What a thread needs for itself.
  struct Workspace {
    struct Symbol {
      std::int32_t id;
      std::uint32_t rank;  // of the merge with the next symbol
      std::uint32_t previous, next;
    };
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> queue;
    WordCache cache;
  };

  // `byte_tokens` is -1 for bytes without a token: no word may have them. `whole_words` are never divided.
  Bpe(const std::array<std::int32_t, byte_values>& byte_tokens, std::vector<Merge> merges,
      std::unordered_map<std::string, std::int32_t> whole_words);

  // Appends the tokens of `word`, not empty, in O(n log n). Threads may share a Bpe, not a workspace.
  void encode(std::string_view word, std::vector<std::int32_t>& tokens, Workspace& workspace) const;

 private:
  void encode_anew(std::string_view word, std::vector<std::int32_t>& tokens, Workspace& workspace) const;
  void merge_all(Workspace& workspace) const;

  std::array<std::int32_t, byte_values> byte_tokens_;
  std::vector<Merge> merges_;
  MergeRanks ranks_;
  std::unordered_map<std::string, std::int32_t> whole_words_;
};

}  // namespace flasheva
