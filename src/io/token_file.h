// Token streams in HDF5: `/tokens` (uint16 or uint32, one-dimensional) with attributes vocab_size (required),
// tokenizer, eos_token_id, source; optional `/loss_mask` (uint8, as long) and `/document_offsets` (uint64, n
// + 1 entries from 0 to the number of tokens). h5py reads what is written here and the reverse.
//
// Sequence i of length L is tokens [i L, i L + L + 1): L inputs and the L targets one place on.
// Files are opened read-only; any other type, rank, external link, external storage or plugin filter is
// refused. Errors are Error{data}: "FILE:/dataset: what; what to do". Every id is compared with vocab_size
// when read. The HDF5 library is not thread-safe: use all token files of a process from one thread at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace flasheva {

// True where ids below vocab_size are stored as uint16, else as uint32.
constexpr bool fits_uint16(std::int64_t vocab_size) { return vocab_size <= std::int64_t{1} << 16; }

struct TokenFileInfo {
  std::int64_t tokens = 0;
  std::int64_t vocab_size = 0;
  std::string tokenizer, source;  // empty where the file does not say
  std::optional<std::int64_t> eos_token_id;
  bool has_loss_mask = false;
  std::int64_t documents = 0;  // 0: no /document_offsets
  std::string stored_type;     // "uint16", "uint32"
};

// What verify() counted.
struct TokenFileStatistics {
  std::int64_t largest_token = -1;   // -1: no tokens
  std::int64_t counted_targets = 0;  // tokens whose loss mask is not 0; all of them without a mask
};

class TokenFile {
 public:
  explicit TokenFile(const std::filesystem::path& path);
  ~TokenFile();
  TokenFile(TokenFile&&) noexcept;

  const std::filesystem::path& path() const { return path_; }
  const TokenFileInfo& info() const { return info_; }

  // Whole sequences of length L: floor((tokens - 1) / L).
  std::int64_t sequences(std::int64_t length) const {
    return info_.tokens > 0 ? (info_.tokens - 1) / length : 0;
  }

  // inputs = tokens [first, first + L), targets one place on, mask = loss mask of the targets (1 without
  // one); L = inputs.size(), the same for all three.
  void read(std::int64_t first, std::span<std::int32_t> inputs, std::span<std::int32_t> targets,
            std::span<std::uint8_t> mask);

  // tokens [first, first + tokens.size()).
  void read_tokens(std::int64_t first, std::span<std::int32_t> tokens);

  // Document boundaries, checked; empty where the file has none.
  std::vector<std::uint64_t> document_offsets() const;

  // Reads and checks everything: every id below vocab_size, offsets ascending and complete.
  TokenFileStatistics verify();

 private:
  struct Handles;
  // tokens [first, first + count) in scratch_, each checked.
  void load(std::int64_t first, std::int64_t count);
  // Document boundaries in blocks, each checked before it is passed on.
  void for_offsets(const std::function<void(std::span<const std::uint64_t>)>& use) const;

  std::filesystem::path path_;
  TokenFileInfo info_;
  std::unique_ptr<Handles> handles_;
  std::vector<std::uint32_t> scratch_;
};

struct TokenFileAttributes {
  std::int64_t vocab_size = 0;
  std::string tokenizer, source;
  std::optional<std::int64_t> eos_token_id;
};

// Appends tokens to a new file; uint16 where the vocabulary fits, else uint32. The file appears under its
// name only when finish() has written it whole. Error{disk} where it cannot be written, Error{data} for an id
// beyond the vocabulary.
class TokenFileWriter {
 public:
  TokenFileWriter(const std::filesystem::path& path, const TokenFileAttributes& attributes);
  ~TokenFileWriter();

  // Tokens of one document or a part of it; ids are checked.
  void append(std::span<const std::int32_t> tokens);
  // The document ends after the tokens so far. A file without any such call has no /document_offsets.
  void end_document();
  std::int64_t tokens() const;
  std::int64_t documents() const;
  // Writes what is left, flushes to the device and gives the file its name.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace flasheva
