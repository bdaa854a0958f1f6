#include "src/io/partial_tokens.h"

#include <algorithm>
#include <vector>

#include "src/core/error.h"
#include "src/core/text.h"
#include "src/io/split_token_writer.h"
#include "src/io/token_file.h"

namespace flasheva {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::size_t buffer_bytes = 1 << 20;
constexpr std::size_t block_elements = 1 << 16;
constexpr const char* token_name = "tokens.bin";
constexpr const char* document_name = "documents.bin";
constexpr const char* journal_name = "journal.json";

std::int64_t bytes_per_token(std::int64_t vocab_size) { return fits_uint16(vocab_size) ? 2 : 4; }

template <class T>
void append_value(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void remove_files(const fs::path& folder) {
  std::error_code ignored;
  // The journal first: without it, the rest counts for nothing.
  for (const char* name : {journal_name, token_name, document_name}) fs::remove(folder / name, ignored);
  fs::remove(fs::path(folder / journal_name).concat(".tmp"), ignored);
}

// A file of T's, a block at a time.
template <class T>
class BlockReader {
 public:
  BlockReader(const fs::path& path, std::int64_t count) : path_(path), file_(path), left_(count) {}

  std::int64_t left() const { return left_; }

  // The next block, of `most` elements at most.
  std::span<const T> next(std::int64_t most) {
    const auto count = static_cast<std::size_t>(std::min({left_, most, std::int64_t{block_elements}}));
    block_.resize(count);
    if (file_.read(block_.data(), count * sizeof(T)) < count * sizeof(T))
      fail(ExitCode::data, "{}: shorter than its journal says; start anew with --fresh", path_.string());
    left_ -= static_cast<std::int64_t>(count);
    return block_;
  }

 private:
  fs::path path_;
  FileReader file_;
  std::int64_t left_;
  std::vector<T> block_;
};

template <class T>
void copy(const fs::path& folder, std::int64_t tokens, std::int64_t documents, SplitTokenWriter& writer,
          const std::function<void(std::int64_t)>& progress) {
  BlockReader<T> ids(folder / token_name, tokens);
  BlockReader<std::uint64_t> ends(folder / document_name, documents);
  std::vector<std::int32_t> block;
  const auto copy_until = [&](std::int64_t end) {
    if (end < tokens - ids.left() || end > tokens)
      fail(ExitCode::data, "{}: damaged; start anew with --fresh", (folder / document_name).string());
    while (tokens - ids.left() < end) {
      const std::span<const T> next = ids.next(end - (tokens - ids.left()));
      block.assign(next.begin(), next.end());
      writer.append(block);
    }
    progress(end);
  };
  while (ends.left() > 0) {
    for (const std::uint64_t end : ends.next(block_elements)) {
      copy_until(static_cast<std::int64_t>(end));
      writer.end_document();
    }
  }
  copy_until(tokens);
}

}  // namespace

PartialTokens::PartialTokens(const fs::path& output, std::int64_t vocab_size, bool fresh)
    : folder_(output.string() + ".partial"), vocab_size_(vocab_size) {
  create_folders(folder_);
  lock_.emplace(folder_, "--output");
  if (fresh || !fs::exists(folder_ / journal_name)) remove_files(folder_);
  if (fs::exists(folder_ / journal_name)) read_journal();
}

PartialTokens::~PartialTokens() {
  if (record_.is_null()) remove();
}

void PartialTokens::read_journal() {
  const fs::path path = folder_ / journal_name;
  const auto damaged = [&](const std::string& reason) {
    fail(ExitCode::data, "{}: damaged ({}); start anew with --fresh", path.string(), reason);
  };
  try {
    const json journal = json::parse(read_text_file(path));
    tokens_ = journal.at("tokens");
    documents_ = journal.at("documents");
    record_ = journal.at("record");
  } catch (const json::exception& error) {
    damaged(printable(error.what(), 200));
  }
  if (tokens_ < 0 || documents_ < 0 || !record_.is_object()) damaged("impossible values");
}

// Not before something is appended or read: the owner may refuse the record, and then nothing may change.
void PartialTokens::open_files() {
  if (document_file_) return;
  const auto open = [&](const char* name, std::int64_t bytes, std::optional<FileWriter>& file) {
    const fs::path path = folder_ / name;
    std::error_code none;
    const auto size = fs::exists(path) ? static_cast<std::int64_t>(fs::file_size(path, none)) : 0;
    if (size < bytes)
      fail(ExitCode::data, "{}: {} bytes, its journal says {}; start anew with --fresh", path.string(), size,
           bytes);
    file.emplace(path, bytes);
  };
  open(token_name, tokens_ * bytes_per_token(vocab_size_), token_file_);
  open(document_name, documents_ * static_cast<std::int64_t>(sizeof(std::uint64_t)), document_file_);
}

void PartialTokens::append(std::span<const std::int32_t> tokens) {
  open_files();
  const bool narrow = fits_uint16(vocab_size_);
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= vocab_size_)
      fail(ExitCode::data, "the tokenizer gave token {}, not below its vocab_size {}; repair the tokenizer",
           token, vocab_size_);
    if (narrow)
      append_value(token_bytes_, static_cast<std::uint16_t>(token));
    else
      append_value(token_bytes_, static_cast<std::uint32_t>(token));
  }
  tokens_ += static_cast<std::int64_t>(tokens.size());
  if (token_bytes_.size() >= buffer_bytes) flush_buffers();
}

void PartialTokens::end_document() {
  open_files();
  append_value(document_bytes_, static_cast<std::uint64_t>(tokens_));
  ++documents_;
  if (document_bytes_.size() >= buffer_bytes) flush_buffers();
}

void PartialTokens::flush_buffers() {
  open_files();
  token_file_->write(token_bytes_);
  document_file_->write(document_bytes_);
  token_bytes_.clear();
  document_bytes_.clear();
}

void PartialTokens::commit(const json& record) {
  flush_buffers();
  token_file_->sync();
  document_file_->sync();
  const json journal = {{"tokens", tokens_}, {"documents", documents_}, {"record", record}};
  write_file_atomically(folder_ / journal_name, journal.dump(1) + "\n");
  record_ = record;
}

void PartialTokens::copy_to(SplitTokenWriter& writer, const std::function<void(std::int64_t)>& progress) {
  flush_buffers();
  if (fits_uint16(vocab_size_))
    copy<std::uint16_t>(folder_, tokens_, documents_, writer, progress);
  else
    copy<std::uint32_t>(folder_, tokens_, documents_, writer, progress);
}

void PartialTokens::remove() {
  remove_files(folder_);
  std::error_code ignored;
  fs::remove(folder_, ignored);  // only if nothing else is in it
}

}  // namespace flasheva
