// Inputs of `data prepare` cut into pieces that threads tokenize apart from each other.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/io/input_stream.h"
#include "src/io/tokenizer.h"

namespace flasheva {

// Text files are documents; in files whose names end in .jsonl or .ndjson, each line is one. Both may be
// compressed.
bool holds_json_lines(const std::filesystem::path& path);

// A place between two pieces, from which reading can go on.
struct InputPosition {
  std::size_t input = 0;    // index among the inputs
  std::int64_t offset = 0;  // bytes of its text
  std::int64_t line = 1;    // of JSONL: number of the next line
};

struct TextPiece {
  std::size_t input = 0;
  std::filesystem::path path;
  std::string text;             // whole lines of JSONL, or a part of one document
  std::int64_t first_line = 0;  // number of the first of these lines; 0: not JSONL
  bool ends_document = false;   // not JSONL: the document's last part
  InputPosition after;
  std::int64_t file_bytes = 0;  // of this input, read so far
};

class TextReader {
 public:
  // A line, or a text in which the tokenizer finds no place to cut, may have `max_bytes` at most.
  TextReader(std::vector<std::filesystem::path> inputs, const Tokenizer& tokenizer, std::size_t max_bytes,
             const InputPosition& start);

  // The next piece, nothing after the last. Of JSONL about a MiB; a longer line is left to whoever reads the
  // piece to refuse. Error{data} for an input that cannot be read, is broken, or cannot be cut.
  std::optional<TextPiece> next();

 private:
  void open_input_at_position();
  void fill(std::size_t bytes);  // buffer_ has so many bytes then, or all that is left (at_end_)
  std::size_t bytes_of_lines();
  std::size_t bytes_of_text();

  std::vector<std::filesystem::path> inputs_;
  const Tokenizer& tokenizer_;
  std::size_t max_bytes_;
  InputPosition position_;
  std::unique_ptr<InputStream> stream_;  // of the input at position_; none before it is opened
  std::string buffer_;                   // text from position_ on
  bool at_end_ = false;                  // the stream has no more than the buffer
};

// The ids of a piece, the tokenizer's EOS after each document, and where documents end among them.
struct TokenizedPiece {
  std::vector<std::int32_t> tokens;
  std::vector<std::size_t> document_ends;
};

// `text_key`: the name under which a JSON line has its text. Error{data} (file, line) for a broken line or
// one of more than `max_line_bytes`. Called from many threads at once.
TokenizedPiece tokenize_piece(const TextPiece& piece, const Tokenizer& tokenizer, const std::string& text_key,
                              std::size_t max_line_bytes);

}  // namespace flasheva
