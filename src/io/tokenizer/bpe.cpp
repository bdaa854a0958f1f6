#include "src/io/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <span>

#include "kernels/check.h"
#include "src/core/file.h"

namespace flasheva {

MergeRanks::MergeRanks(const std::vector<Merge>& merges)
    : slots_(std::bit_ceil(2 * merges.size() + 2)), shift_(64 - std::countr_zero(slots_.size())) {
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const std::uint64_t key = key_of(merges[rank].left, merges[rank].right);
    slots_[slot_of(key)] = {key, static_cast<std::uint32_t>(rank)};
  }
}

std::size_t MergeRanks::slot_of(std::uint64_t key) const {
  std::size_t slot = (key * 0x9e3779b97f4a7c15u) >> shift_;
  while (slots_[slot].rank != none && slots_[slot].key != key) slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

WordCache::Entry& WordCache::entry_of(std::string_view word) {
  return entries_[checksum_of(std::as_bytes(std::span(word))) & (entries_.size() - 1)];
}

Bpe::Bpe(const std::array<std::int32_t, byte_values>& byte_tokens, std::vector<Merge> merges,
         std::unordered_map<std::string, std::int32_t> whole_words)
    : byte_tokens_(byte_tokens),
      merges_(std::move(merges)),
      ranks_(merges_),
      whole_words_(std::move(whole_words)) {}

void Bpe::encode(std::string_view word, std::vector<std::int32_t>& tokens, Workspace& workspace) const {
  if (word.size() > WordCache::max_bytes) return encode_anew(word, tokens, workspace);
  WordCache::Entry& entry = workspace.cache.entry_of(word);
  if (std::string_view(entry.word.data(), entry.bytes) == word) {
    tokens.insert(tokens.end(), entry.ids.begin(), entry.ids.begin() + entry.tokens);
    return;
  }
  const std::size_t before = tokens.size();
  encode_anew(word, tokens, workspace);
  const std::size_t count = tokens.size() - before;
  if (count > WordCache::max_tokens) return;
  entry.bytes = static_cast<std::uint8_t>(word.size());
  entry.tokens = static_cast<std::uint8_t>(count);
  std::copy(word.begin(), word.end(), entry.word.begin());
  std::copy(tokens.end() - static_cast<std::ptrdiff_t>(count), tokens.end(), entry.ids.begin());
}

void Bpe::encode_anew(std::string_view word, std::vector<std::int32_t>& tokens, Workspace& workspace) const {
  if (!whole_words_.empty()) {
    const auto whole = whole_words_.find(std::string(word));
    if (whole != whole_words_.end()) return tokens.push_back(whole->second);
  }
  FLASHEVA_CHECK(word.size() < MergeRanks::none);
  auto& symbols = workspace.symbols;
  symbols.resize(word.size());
  for (std::uint32_t i = 0; i < symbols.size();
       ++i)  // the ends of the list: previous of the first wraps around
    symbols[i] = {byte_tokens_[static_cast<std::uint8_t>(word[i])], MergeRanks::none, i - 1, i + 1};
  merge_all(workspace);
  for (std::size_t at = 0; at < symbols.size(); at = symbols[at].next) tokens.push_back(symbols[at].id);
}

// The queue holds rank << 32 | place, smallest first. An entry is out of date if the symbol at that place has
// another rank by now.
void Bpe::merge_all(Workspace& workspace) const {
  auto& symbols = workspace.symbols;
  auto& queue = workspace.queue;
  const auto size = static_cast<std::uint32_t>(symbols.size());
  const auto set_rank = [&](std::uint32_t at) {
    Workspace::Symbol& symbol = symbols[at];
    symbol.rank = symbol.next < size ? ranks_.find(symbol.id, symbols[symbol.next].id) : MergeRanks::none;
    return symbol.rank != MergeRanks::none;
  };
  const auto entry = [&](std::uint32_t at) { return std::uint64_t{symbols[at].rank} << 32 | at; };
  const auto push = [&](std::uint32_t at) {
    if (!set_rank(at)) return;
    queue.push_back(entry(at));
    std::push_heap(queue.begin(), queue.end(), std::greater<>());
  };

  queue.clear();
  for (std::uint32_t at = 0; at < size; ++at)
    if (set_rank(at)) queue.push_back(entry(at));
  std::make_heap(queue.begin(), queue.end(), std::greater<>());
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), std::greater<>());
    const auto at = static_cast<std::uint32_t>(queue.back());
    const auto rank = static_cast<std::uint32_t>(queue.back() >> 32);
    queue.pop_back();
    Workspace::Symbol& left = symbols[at];
    if (left.rank != rank) continue;
    Workspace::Symbol& right = symbols[left.next];
    right.rank = MergeRanks::none;
    left.id = merges_[rank].result;
    left.next = right.next;
    if (left.next < size) symbols[left.next].previous = at;
    push(at);
    if (left.previous < size) push(left.previous);
  }
}

}  // namespace flasheva
