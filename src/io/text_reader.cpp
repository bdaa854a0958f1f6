#include "src/io/text_reader.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <utility>

#include "src/core/error.h"
#include "src/core/text.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t piece_bytes = 1 << 20;

void encode(std::string_view text, const Tokenizer& tokenizer, std::vector<std::int32_t>& out) {
  while (!text.empty()) {
    const std::size_t bytes = tokenizer.piece(text, piece_bytes);
    const std::vector<std::int32_t> tokens = tokenizer.encode(text.substr(0, bytes));
    out.insert(out.end(), tokens.begin(), tokens.end());
    text.remove_prefix(bytes);
  }
}

void end_document(const Tokenizer& tokenizer, TokenizedPiece& out) {
  if (const std::optional<std::int32_t> eos = tokenizer.eos_token_id()) out.tokens.push_back(*eos);
  out.document_ends.push_back(out.tokens.size());
}

std::string text_of_json_line(std::string_view line, const std::string& key, const std::string& where) {
  nlohmann::json object;
  try {
    object = nlohmann::json::parse(line);
  } catch (const nlohmann::json::exception& error) {
    fail(ExitCode::data, "{}: not JSON ({}); correct or remove the line", where,
         printable(error.what(), 200));
  }
  if (!object.is_object())
    fail(ExitCode::data, "{}: is {}, not a JSON object; correct or remove the line", where,
         object.type_name());
  const auto text = object.find(key);
  if (text == object.end())
    fail(ExitCode::data, "{}: has no key `{}`; name the text's key with --text-key, or remove the line",
         where, printable(key));
  if (!text->is_string())
    fail(ExitCode::data, "{}: `{}` is {}, not a string; correct or remove the line", where, printable(key),
         text->type_name());
  return std::move(text->get_ref<std::string&>());
}

// Empty lines, as a file's last one may be, are no documents.
void tokenize_lines(const TextPiece& piece, const Tokenizer& tokenizer, const std::string& text_key,
                    std::size_t max_line_bytes, TokenizedPiece& out) {
  std::string_view rest = piece.text;
  for (std::int64_t number = piece.first_line; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    const std::string where = fmt::format("{}:{}", piece.path.string(), number);
    if (line.size() > max_line_bytes)
      fail(ExitCode::data, "{}: a line of more than {}; divide the document", where,
           format_bytes(max_line_bytes));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    encode(text_of_json_line(line, text_key, where), tokenizer, out.tokens);
    end_document(tokenizer, out);
  }
}

}  // namespace

bool holds_json_lines(const fs::path& path) {
  std::string extension = without_compression(path).extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension == ".jsonl" || extension == ".ndjson";
}

TextReader::TextReader(std::vector<fs::path> inputs, const Tokenizer& tokenizer, std::size_t max_bytes,
                       const InputPosition& start)
    : inputs_(std::move(inputs)), tokenizer_(tokenizer), max_bytes_(max_bytes), position_(start) {}

void TextReader::open_input_at_position() {
  stream_ = open_input(inputs_[position_.input]);
  if (position_.offset > 0) stream_->skip(position_.offset);
  buffer_.clear();
  at_end_ = false;
}

void TextReader::fill(std::size_t bytes) {
  const std::size_t before = buffer_.size();
  if (at_end_ || before >= bytes) return;
  buffer_.resize(bytes);
  const std::size_t count = stream_->read(std::span(buffer_).subspan(before));
  buffer_.resize(before + count);
  at_end_ = buffer_.size() < bytes;
}

// Whole lines; a line that is too long as far as it was read.
std::size_t TextReader::bytes_of_lines() {
  for (std::size_t wanted = piece_bytes;; wanted *= 2) {
    fill(std::min(wanted, std::max(piece_bytes, max_bytes_ + 1)));
    if (at_end_) return buffer_.size();
    const std::size_t last = buffer_.rfind('\n');
    if (last != std::string::npos) return last + 1;
    if (buffer_.size() > max_bytes_) return buffer_.size();
  }
}

// The tokenizer sees as much text again behind the place where it cuts.
std::size_t TextReader::bytes_of_text() {
  for (std::size_t wanted = 2 * piece_bytes;; wanted *= 2) {
    fill(wanted);
    const std::size_t bytes = buffer_.empty() ? 0 : tokenizer_.piece(buffer_, piece_bytes);
    if (bytes < buffer_.size() || at_end_) return bytes;
    if (wanted > max_bytes_)
      fail(ExitCode::data, "{}: no place to divide the text in {} from byte {} on; break it into documents",
           inputs_[position_.input].string(), format_bytes(wanted), position_.offset);
  }
}

std::optional<TextPiece> TextReader::next() {
  for (;; position_ = {position_.input + 1}, stream_.reset()) {
    if (position_.input == inputs_.size()) return std::nullopt;
    if (stream_ == nullptr) open_input_at_position();
    const bool lines = holds_json_lines(inputs_[position_.input]);
    const std::size_t bytes = lines ? bytes_of_lines() : bytes_of_text();
    if (lines && bytes == 0) continue;  // its last line was read

    TextPiece piece;
    piece.input = position_.input;
    piece.path = inputs_[position_.input];
    piece.text = buffer_.substr(0, bytes);
    buffer_.erase(0, bytes);
    const bool ends = at_end_ && buffer_.empty();
    position_.offset += static_cast<std::int64_t>(bytes);
    if (lines) {
      piece.first_line = position_.line;
      position_.line += std::count(piece.text.begin(), piece.text.end(), '\n');
    } else {
      piece.ends_document = ends;
    }
    piece.file_bytes = stream_->file_bytes();
    if (ends) {
      position_ = {position_.input + 1};
      stream_.reset();
    }
    piece.after = position_;
    return piece;
  }
}

TokenizedPiece tokenize_piece(const TextPiece& piece, const Tokenizer& tokenizer, const std::string& text_key,
                              std::size_t max_line_bytes) {
  TokenizedPiece out;
  if (piece.first_line > 0) {
    tokenize_lines(piece, tokenizer, text_key, max_line_bytes, out);
  } else {
    encode(piece.text, tokenizer, out.tokens);
    if (piece.ends_document) end_document(tokenizer, out);
  }
  return out;
}

}  // namespace flasheva
