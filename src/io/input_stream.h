// Input files as streams of text, decompressed where the name ends in .gz (gzip, any number of members) or
// .zst (Zstandard, any number of frames). Memory is bounded by the decoder's window, at most 128 MiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace flasheva {

class InputStream {
 public:
  virtual ~InputStream() = default;

  // Fills `out` from its start and gives the number of bytes: fewer than asked only at the end of the text.
  // Error{data} (file, byte of the file) for what is not valid in its format, or ends too early.
  virtual std::size_t read(std::span<char> out) = 0;
  // Passes over so many bytes of text; Error{data} where there are fewer.
  virtual void skip(std::int64_t bytes) = 0;
  // Bytes of the file, compressed as it may be, that were read so far.
  virtual std::int64_t file_bytes() const = 0;
};

// Error{data} for a file whose first bytes are those of a format that is no text, or of a compression that
// its name does not tell.
void check_format(const std::filesystem::path& path);

std::unique_ptr<InputStream> open_input(const std::filesystem::path& path);

// "corpus.jsonl.gz" -> "corpus.jsonl": what the file's text is called.
std::filesystem::path without_compression(const std::filesystem::path& path);

}  // namespace flasheva
