#include "src/io/prepare.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>

#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/text.h"
#include "src/io/token_file.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t piece_bytes = 1 << 20;
constexpr std::int64_t copy_tokens = 1 << 18;
constexpr std::size_t max_source_bytes = 1000;
constexpr std::int64_t shown_tokens = 64;

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

void append_document(std::string_view text, const Tokenizer& tokenizer, TokenFileWriter& writer) {
  while (!text.empty()) {
    const std::size_t bytes = tokenizer.piece(text, piece_bytes);
    writer.append(tokenizer.encode(text.substr(0, bytes)));
    text.remove_prefix(bytes);
  }
  if (const std::optional<std::int32_t> eos = tokenizer.eos_token_id()) writer.append(std::span(&*eos, 1));
  writer.end_document();
}

std::string text_of_json_line(std::string_view line, const std::string& where) {
  try {
    const auto object = nlohmann::json::parse(line);
    const auto text = object.find("text");
    if (object.is_object() && text != object.end() && text->is_string()) return text->get<std::string>();
  } catch (const nlohmann::json::exception& error) {
    fail(ExitCode::data, "{}: not JSON: {}", where, printable(error.what(), 200));
  }
  fail(ExitCode::data, "{}: not a JSON object with a string `text`", where);
}

// Empty lines, as a file's last one may be, are no documents.
void append_json_lines(const fs::path& path, const Tokenizer& tokenizer, TokenFileWriter& writer) {
  const MappedFile file(path);
  std::string_view rest = text_of(file);
  for (std::int64_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    append_document(text_of_json_line(line, fmt::format("{}:{}", path.string(), number)), tokenizer, writer);
  }
}

void append_input(const fs::path& path, const Tokenizer& tokenizer, TokenFileWriter& writer) {
  if (path.extension() == ".jsonl") return append_json_lines(path, tokenizer, writer);
  const MappedFile file(path);
  append_document(text_of(file), tokenizer, writer);
}

std::string names_of_files(const std::vector<fs::path>& inputs) {
  std::string names;
  for (const fs::path& input : inputs) names += (names.empty() ? "" : ", ") + input.filename().string();
  return printable(names, max_source_bytes);
}

void check(const PrepareOptions& options) {
  if (options.inputs.empty()) fail(ExitCode::usage, "data prepare: no input; give text or .jsonl files");
  if (!(options.validation >= 0 && options.validation < 1))
    fail(ExitCode::usage, "data prepare: validation is {}; it must be a fraction from 0 to below 1",
         options.validation);
  if (options.output.extension() != ".h5")
    fail(ExitCode::usage, "data prepare: output {} must end in .h5", options.output.string());
}

// Tokens [first, last) of a file as a file of their own, document boundaries moved along.
PreparedFile copy_tokens_between(TokenFile& from, std::int64_t first, std::int64_t last,
                                 const fs::path& path) {
  const TokenFileInfo& info = from.info();
  TokenFileWriter writer(path, {info.vocab_size, info.tokenizer, info.source, info.eos_token_id});
  std::vector<std::int32_t> tokens;
  const auto copy_until = [&](std::int64_t end) {
    for (std::int64_t at = first + writer.tokens(); at < end; at = first + writer.tokens()) {
      tokens.resize(static_cast<std::size_t>(std::min(copy_tokens, end - at)));
      from.read_tokens(at, tokens);
      writer.append(tokens);
    }
  };
  const std::vector<std::uint64_t> offsets = from.document_offsets();
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    const auto end = static_cast<std::int64_t>(offsets[i]);
    if (end > last || (first > 0 && end <= first)) continue;
    copy_until(end);
    writer.end_document();
  }
  if (first + writer.tokens() < last) {  // a document goes on in the next file
    copy_until(last);
    writer.end_document();
  }
  writer.finish();
  return {path, writer.tokens(), writer.documents()};
}

// Deletes a file at the end of the scope.
struct Scratch {
  fs::path path;
  ~Scratch() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
};

PreparedFile tokenize(const PrepareOptions& options, const Tokenizer& tokenizer, const fs::path& path) {
  TokenFileWriter writer(path, {tokenizer.vocab_size(), tokenizer.name(), names_of_files(options.inputs),
                                tokenizer.eos_token_id()});
  for (const fs::path& input : options.inputs) append_input(input, tokenizer, writer);
  if (writer.tokens() == 0) fail(ExitCode::data, "{}: no text in it", names_of_files(options.inputs));
  writer.finish();
  return {path, writer.tokens(), writer.documents()};
}

}  // namespace

PrepareSummary prepare_tokens(const PrepareOptions& options, const Tokenizer& tokenizer) {
  check(options);
  const fs::path& output = options.output;
  if (output.has_parent_path()) create_folders(output.parent_path());
  if (options.validation == 0) return {tokenize(options, tokenizer, output), std::nullopt};

  // Where to split is known only when everything is tokenized: into a scratch file, which is then cut in two.
  const Scratch scratch{output.string() + ".whole"};
  const PreparedFile whole = tokenize(options, tokenizer, scratch.path);
  const std::int64_t validation = std::llround(options.validation * static_cast<double>(whole.tokens));
  if (validation == 0 || validation == whole.tokens)
    fail(ExitCode::data,
         "data prepare: {} tokens leave {} for validation and {} for training; give more text", whole.tokens,
         validation, whole.tokens - validation);
  TokenFile file(scratch.path);
  const std::int64_t cut = whole.tokens - validation;
  const fs::path validation_path = output.parent_path() / (output.stem().string() + "-validation.h5");
  return {copy_tokens_between(file, 0, cut, output),
          copy_tokens_between(file, cut, whole.tokens, validation_path)};
}

std::string inspect_token_file(const fs::path& path) {
  TokenFile file(path);
  const TokenFileStatistics statistics = file.verify();
  const TokenFileInfo& info = file.info();
  std::string out = path.string() + "\n";
  const auto line = [&](const char* name, const std::string& value) {
    out += fmt::format("  {:<14}{}\n", name, value);
  };

  line("tokens", fmt::format("{} ({})", info.tokens, info.stored_type));
  line("vocab_size", fmt::format("{}, largest id {}", info.vocab_size, statistics.largest_token));
  line("tokenizer", info.tokenizer.empty() ? "not named" : printable(info.tokenizer));
  line("eos_token_id", info.eos_token_id ? fmt::format("{}", *info.eos_token_id) : "none");
  line("source", info.source.empty() ? "not named" : printable(info.source, max_source_bytes));
  line("documents", info.documents > 0 ? fmt::format("{}", info.documents) : "not marked");
  line("loss_mask", info.has_loss_mask ? fmt::format("{} of {} tokens count as targets",
                                                     statistics.counted_targets, info.tokens)
                                       : "none: every target counts");
  std::vector<std::int32_t> first(static_cast<std::size_t>(std::min(shown_tokens, info.tokens)));
  file.read_tokens(0, first);
  if (info.tokenizer == "bytes" && info.vocab_size == 256)
    line("starts with", printable(make_tokenizer("bytes")->decode(first), 2 * shown_tokens));
  else
    line("starts with", fmt::format("{}", fmt::join(first, " ")));
  return out + "  verified: every id is below vocab_size, every offset in order\n";
}

}  // namespace flasheva
