#include "src/io/megatron.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <string_view>
#include <utility>

#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/text.h"
#include "src/io/ingest_progress.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view magic{"MMIDIDX\0\0", 9}, older_magic{"TNTIDX\0\0", 8};
constexpr std::int64_t header_bytes = 9 + 8 + 1 + 8 + 8;
constexpr std::int64_t bytes_per_sequence = 4 + 8, bytes_per_entry = 8;
constexpr std::int64_t block_ids = 1 << 16;
constexpr std::int64_t none = -1;  // no id

// The arrays stand at odd addresses.
template <class T>
T value_at(std::span<const std::byte> bytes, std::int64_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

bool starts_with(std::span<const std::byte> bytes, std::string_view text) {
  return bytes.size() >= text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
}

}  // namespace

std::size_t bytes_of(MegatronType type) {
  switch (type) {
    case MegatronType::uint8:
    case MegatronType::int8:
      return 1;
    case MegatronType::int16:
    case MegatronType::uint16:
      return 2;
    case MegatronType::int32:
      return 4;
    case MegatronType::int64:
      return 8;
  }
  return 0;
}

// ---- the .idx

MegatronIndex::MegatronIndex(std::span<const std::byte> idx, std::int64_t bin_bytes, const std::string& where)
    : idx_(idx) {
  read_header(where);
  check_sequences(bin_bytes, where);
  check_documents(where);
}

void MegatronIndex::read_header(const std::string& where) {
  if (starts_with(idx_, older_magic))
    fail(ExitCode::data, "{}: is the older TNTIDX format; write it again with --dataset-impl mmap", where);
  if (!starts_with(idx_, magic))
    fail(ExitCode::data, "{}: not the index of a Megatron data set; give the .idx that belongs to the .bin",
         where);
  const auto size = static_cast<std::int64_t>(idx_.size());
  if (size < header_bytes)
    fail(ExitCode::data, "{}: ends after {} bytes, inside its header of {}; copy it again", where, size,
         header_bytes);
  const auto version = value_at<std::uint64_t>(idx_, 9);
  if (version != 1) fail(ExitCode::data, "{}: is version {}; only version 1 is read", where, version);

  const auto code = value_at<std::uint8_t>(idx_, 17);
  if (code == 6 || code == 7)
    fail(ExitCode::data, "{}: holds floating-point numbers (type {}), not token ids", where, code);
  type_ = static_cast<MegatronType>(code);
  if (bytes_of(type_) == 0)
    fail(ExitCode::data, "{}: unknown type {} at byte 17; types are 1 to 5 and 8", where, code);

  // Counts first by themselves, so that the sum below stays small.
  const auto sequences = value_at<std::uint64_t>(idx_, 18), entries = value_at<std::uint64_t>(idx_, 26);
  const auto most = static_cast<std::uint64_t>(size);
  if (sequences > most / bytes_per_sequence || entries > most / bytes_per_entry)
    fail(ExitCode::data, "{}: {} bytes cannot hold {} sequences and {} document entries; copy it again",
         where, size, sequences, entries);
  sequences_ = static_cast<std::int64_t>(sequences);
  entries_ = static_cast<std::int64_t>(entries);
  documents_ = entries_ == 1 ? sequences_ : entries_ - 1;
  const std::int64_t expected = header_bytes + bytes_per_sequence * sequences_ + bytes_per_entry * entries_;
  if (sequences_ > 0 && size == expected + sequences_)
    fail(ExitCode::data, "{}: has a mode for every sequence; multimodal data sets are not read", where);
  if (size != expected)
    fail(ExitCode::data, "{}: {} bytes; {} sequences and {} document entries take {}; copy it again", where,
         size, sequences_, entries_, expected);
}

void MegatronIndex::check_sequences(std::int64_t bin_bytes, const std::string& where) const {
  const auto width = static_cast<std::int64_t>(bytes_of(type_));
  std::int64_t end = 0;
  for (std::int64_t i = 0; i < sequences_; ++i) {
    const auto pointer = value_at<std::int64_t>(idx_, header_bytes + 4 * sequences_ + 8 * i);
    if (size(i) < 0)
      fail(ExitCode::data, "{}: sequence {} has {} ids; the index is damaged", where, i, size(i));
    if (pointer != end)
      fail(ExitCode::data,
           "{}: sequence {} begins at byte {}, the one before it ends at byte {}; the index is damaged",
           where, i, pointer, end);
    if (size(i) > (bin_bytes - end) / width)
      fail(ExitCode::data,
           "{}: sequence {} of {} ids from byte {} on lies outside the .bin of {} bytes; copy both again",
           where, i, size(i), pointer, bin_bytes);
    end += size(i) * width;
  }
  if (end != bin_bytes)
    fail(ExitCode::data, "{}: its sequences take {} bytes, the .bin has {}; do the two belong together?",
         where, end, bin_bytes);
}

void MegatronIndex::check_documents(const std::string& where) const {
  const auto entry = [&](std::int64_t i) {
    return value_at<std::int64_t>(idx_, header_bytes + bytes_per_sequence * sequences_ + 8 * i);
  };
  if (entries_ == 0 || entry(0) != 0)
    fail(ExitCode::data, "{}: its document entries do not start with 0; the index is damaged", where);
  for (std::int64_t i = 1; i < entries_; ++i)
    if (entry(i) < entry(i - 1) || entry(i) > sequences_)
      fail(ExitCode::data,
           "{}: document {} ends before sequence {}, out of order among {}; the index is damaged", where,
           i - 1, entry(i), sequences_);
  if (entries_ > 1 && entry(entries_ - 1) != sequences_)
    fail(ExitCode::data, "{}: its documents end with sequence {} of {}; the index is damaged", where,
         entry(entries_ - 1), sequences_);
}

std::int64_t MegatronIndex::size(std::int64_t sequence) const {
  return value_at<std::int32_t>(idx_, header_bytes + 4 * sequence);
}

std::int64_t MegatronIndex::document_end(std::int64_t document) const {
  if (entries_ == 1) return document + 1;
  return value_at<std::int64_t>(idx_, header_bytes + bytes_per_sequence * sequences_ + 8 * (document + 1));
}

// ---- the import

namespace {

// Takes tokens and ends of documents.
struct Sink {
  std::function<void(std::span<const std::int32_t>)> append;
  std::function<void()> end_document;
};

template <class T>
void widen(const std::vector<std::byte>& bytes, std::span<std::int64_t> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    T id;
    std::memcpy(&id, bytes.data() + i * sizeof(T), sizeof(T));
    out[i] = static_cast<std::int64_t>(id);
  }
}

fs::path with_ending(const fs::path& prefix, const char* ending) { return prefix.string() + ending; }

// One PREFIX.bin, whose documents are handed to a sink one after another.
class MegatronReader {
 public:
  MegatronReader(const fs::path& prefix, std::int64_t vocab_size)
      : path_(with_ending(prefix, ".bin")),
        bin_(path_),
        idx_(with_ending(prefix, ".idx")),
        index_(idx_.bytes(), bin_.bytes(), with_ending(prefix, ".idx").string()),
        vocab_size_(vocab_size) {}

  // `eos` ends every document that does not end with it, unless it is none. Gives how often it was added.
  std::int64_t read(std::int64_t eos, const Sink& sink,
                    const std::function<void(std::int64_t bytes)>& progress) {
    std::int64_t added = 0, sequence = 0;
    for (std::int64_t document = 0; document < index_.documents(); ++document) {
      std::int64_t last_id = none;
      for (; sequence < index_.document_end(document); ++sequence) read_sequence(sequence, sink, last_id);
      if (eos != none && last_id != eos) {
        const auto token = static_cast<std::int32_t>(eos);
        sink.append(std::span(&token, 1));
        ++added;
      }
      sink.end_document();
      progress(bin_.position());
    }
    return added;
  }

 private:
  void read_sequence(std::int64_t sequence, const Sink& sink, std::int64_t& last_id) {
    for (std::int64_t left = index_.size(sequence); left > 0;) {
      const std::int64_t count = std::min(left, block_ids);
      read_block(static_cast<std::size_t>(count), sequence);
      sink.append(tokens_);
      last_id = tokens_.back();
      left -= count;
    }
  }

  // The next ids in tokens_, each checked.
  void read_block(std::size_t count, std::int64_t sequence) {
    const auto width = bytes_of(index_.type());
    const std::int64_t start = bin_.position();
    bytes_.resize(count * width);
    if (bin_.read(bytes_.data(), bytes_.size()) < bytes_.size())
      fail(ExitCode::data, "{}: became shorter while it was read; copy it again", path_.string());
    ids_.resize(count);
    convert();
    tokens_.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      if (ids_[i] < 0 || ids_[i] >= vocab_size_)
        fail(ExitCode::data, "{}: id {} in sequence {}, at byte {}, is not from 0 to below --vocab-size {}",
             path_.string(), ids_[i], sequence, start + static_cast<std::int64_t>(i * width), vocab_size_);
      tokens_[i] = static_cast<std::int32_t>(ids_[i]);
    }
  }

  void convert() {
    switch (index_.type()) {
      case MegatronType::uint8:
        return widen<std::uint8_t>(bytes_, ids_);
      case MegatronType::int8:
        return widen<std::int8_t>(bytes_, ids_);
      case MegatronType::int16:
        return widen<std::int16_t>(bytes_, ids_);
      case MegatronType::uint16:
        return widen<std::uint16_t>(bytes_, ids_);
      case MegatronType::int32:
        return widen<std::int32_t>(bytes_, ids_);
      case MegatronType::int64:
        return widen<std::int64_t>(bytes_, ids_);
    }
  }

  fs::path path_;
  FileReader bin_;
  MappedFile idx_;
  MegatronIndex index_;
  std::int64_t vocab_size_;
  std::vector<std::byte> bytes_;
  std::vector<std::int64_t> ids_;
  std::vector<std::int32_t> tokens_;
};

std::vector<fs::path> prefixes_of(const std::vector<fs::path>& inputs) {
  std::vector<fs::path> prefixes;
  for (const fs::path& input : inputs) {
    const bool named_file = input.extension() == ".bin" || input.extension() == ".idx";
    const fs::path prefix = named_file ? fs::path(input).replace_extension() : input;
    if (std::find(prefixes.begin(), prefixes.end(), prefix) == prefixes.end()) prefixes.push_back(prefix);
  }
  return prefixes;
}

void check(const MegatronImport& import) {
  if (import.inputs.empty()) fail(ExitCode::usage, "no input; give PREFIX of PREFIX.bin and PREFIX.idx");
  check_output(import.output, import.validation);
  if (import.eos_token_id && (*import.eos_token_id < 0 || *import.eos_token_id >= import.vocab_size))
    fail(ExitCode::usage, "--eos-token-id {} is not from 0 to below --vocab-size {}", *import.eos_token_id,
         import.vocab_size);
  if (!import.fresh) refuse_existing(import.output, import.validation);
}

// All inputs in order; gives how many EOS were added.
std::int64_t read_all(const std::vector<fs::path>& prefixes, const MegatronImport& import, const Sink& sink,
                      const std::function<void(std::int64_t bytes)>& progress) {
  const std::int64_t eos = import.packed ? none : import.eos_token_id.value_or(none);
  std::int64_t added = 0, bytes_before = 0;
  for (const fs::path& prefix : prefixes) {
    MegatronReader reader(prefix, import.vocab_size);
    added += reader.read(eos, sink, [&](std::int64_t bytes) { progress(bytes_before + bytes); });
    bytes_before += static_cast<std::int64_t>(fs::file_size(with_ending(prefix, ".bin")));
  }
  return added;
}

}  // namespace

void describe_tokenizer(const Tokenizer& tokenizer, MegatronImport& import) {
  if (tokenizer.vocab_size() > import.vocab_size)
    fail(ExitCode::usage, "--vocab-size {} is smaller than the tokenizer's {}", import.vocab_size,
         tokenizer.vocab_size());
  const std::optional<std::int32_t> eos = tokenizer.eos_token_id();
  if (eos && import.eos_token_id.value_or(*eos) != *eos)
    fail(ExitCode::usage, "--eos-token-id {} is not the tokenizer's, {}; leave one of them out",
         *import.eos_token_id, *eos);
  if (eos) import.eos_token_id = *eos;
  import.tokenizer = tokenizer.name();
}

MegatronSummary import_megatron(const MegatronImport& import) {
  check(import);
  const std::vector<fs::path> prefixes = prefixes_of(import.inputs);
  std::vector<fs::path> bins;
  std::int64_t total_bytes = 0, tokens = 0;
  for (const fs::path& prefix : prefixes) {
    const MegatronReader all_readable(prefix,
                                      import.vocab_size);  // or says why not, before anything is written
    bins.push_back(with_ending(prefix, ".bin"));
    total_bytes += static_cast<std::int64_t>(fs::file_size(bins.back()));
  }
  const int passes = import.validation > 0 ? 2 : 1;
  IngestProgress progress(passes * total_bytes);
  if (import.validation > 0) {  // where to cut is known only when everything was counted
    const Sink count{
        [&](std::span<const std::int32_t> ids) { tokens += static_cast<std::int64_t>(ids.size()); }, [] {}};
    read_all(prefixes, import, count, [&](std::int64_t bytes) { progress.show_read({bytes, tokens}); });
  }

  if (import.output.has_parent_path()) create_folders(import.output.parent_path());
  SplitTokenWriter writer(import.output,
                          {import.vocab_size, import.tokenizer, file_names(bins), import.eos_token_id},
                          tokens, import.validation);
  const Sink write{[&](std::span<const std::int32_t> ids) { writer.append(ids); },
                   [&] { writer.end_document(); }};
  MegatronSummary summary;
  summary.eos_added = read_all(prefixes, import, write, [&](std::int64_t bytes) {
    progress.show_read({(passes - 1) * total_bytes + bytes, writer.tokens()});
  });
  if (writer.tokens() == 0) fail(ExitCode::data, "{}: no tokens in it", file_names(bins));
  summary.files = writer.finish();
  return summary;
}

}  // namespace flasheva
