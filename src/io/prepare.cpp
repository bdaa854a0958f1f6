#include "src/io/prepare.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <future>
#include <nlohmann/json.hpp>
#include <optional>

#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/log.h"
#include "src/core/text.h"
#include "src/core/worker_pool.h"
#include "src/io/ingest_progress.h"
#include "src/io/partial_tokens.h"
#include "src/io/text_reader.h"

namespace flasheva {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::size_t most_bytes_under_way = std::size_t{256} << 20;

// ---- what a later run must find unchanged

json settings_of(const PrepareOptions& options, const Tokenizer& tokenizer) {
  const std::optional<std::int32_t> eos = tokenizer.eos_token_id();
  json inputs = json::array();
  for (const fs::path& input : options.inputs) inputs.push_back(printable(input.string(), 4096));
  return {{"--input", inputs},
          {"--text-key", printable(options.text_key)},
          {"--tokenizer",
           {printable(tokenizer.name()), tokenizer.vocab_size(), eos ? json(*eos) : json(),
            options.tokenizer_id}}};
}

struct InputIdentity {
  std::int64_t bytes = 0, modified = 0;  // nanoseconds
};

InputIdentity identity_of(const fs::path& input) {
  check_format(input);
  return {static_cast<std::int64_t>(fs::file_size(input)),
          std::chrono::nanoseconds(fs::last_write_time(input).time_since_epoch()).count()};
}

std::vector<InputIdentity> identities_of(const std::vector<fs::path>& inputs) {
  std::vector<InputIdentity> identities;
  for (const fs::path& input : inputs) identities.push_back(identity_of(input));
  return identities;
}

// The record of a commit: the settings, where reading stands, and which files have been read from.
json record_of(const json& settings, const InputPosition& position,
               const std::vector<InputIdentity>& inputs) {
  json read = json::array();
  for (std::size_t i = 0; i < std::min(position.input + 1, inputs.size()); ++i)
    read.push_back({inputs[i].bytes, inputs[i].modified});
  return {
      {"settings", settings}, {"position", {position.input, position.offset, position.line}}, {"read", read}};
}

void check_unchanged(const json& record, const json& settings, const std::vector<InputIdentity>& inputs,
                     const PrepareOptions& options, const std::string& partial) {
  for (const auto& [flag, value] : settings.items())
    if (record.at("settings").at(flag) != value)
      fail(ExitCode::usage, "{}: was begun with another {}; repeat that command, or start anew with --fresh",
           partial, flag);
  const json& read = record.at("read");
  for (std::size_t i = 0; i < std::min(read.size(), inputs.size()); ++i)
    if (read.at(i) != json{inputs[i].bytes, inputs[i].modified})
      fail(ExitCode::usage, "{}: has changed since {} was begun; start anew with --fresh",
           options.inputs[i].string(), partial);
}

// Where the record says that reading stands; refuses to go on with anything else than it was made from.
InputPosition position_in(const json& record, const json& settings, const std::vector<InputIdentity>& inputs,
                          const PrepareOptions& options) {
  const std::string partial = options.output.string() + ".partial";
  std::string damage = "impossible position";
  try {
    check_unchanged(record, settings, inputs, options, partial);
    const json& position = record.at("position");
    const std::int64_t input = position.at(0), offset = position.at(1), line = position.at(2);
    if (input >= 0 && input <= static_cast<std::int64_t>(inputs.size()) && offset >= 0 && line >= 1)
      return {static_cast<std::size_t>(input), offset, line};
  } catch (const json::exception& error) {
    damage = printable(error.what(), 200);
  }
  fail(ExitCode::data, "{}/journal.json: damaged ({}); start anew with --fresh", partial, damage);
}

// ---- reading, tokenizing on many threads, and keeping the result in order

class Ingest {
 public:
  Ingest(const PrepareOptions& options, const Tokenizer& tokenizer, PartialTokens& out)
      : options_(options),
        tokenizer_(tokenizer),
        out_(out),
        settings_(settings_of(options, tokenizer)),
        inputs_(identities_of(options.inputs)) {
    for (const InputIdentity& input : inputs_) bytes_before_.push_back(bytes_before_.back() + input.bytes);
    if (!out.record().is_null()) position_ = position_in(out.record(), settings_, inputs_, options);
  }

  void run() {
    const int threads = options_.threads > 0 ? options_.threads : omp_get_num_procs();
    IngestProgress progress(bytes_before_.back());
    if (!out_.record().is_null())
      log_line(fmt::format("going on after {} tokens of {} documents", out_.tokens(), out_.documents()));
    TextReader reader(options_.inputs, tokenizer_, options_.max_line_bytes, position_);
    WorkerPool workers(threads);
    while (auto piece = next_piece(reader, progress)) {
      start(std::move(*piece), workers);
      while (under_way_.size() > 2 * static_cast<std::size_t>(threads) ||
             bytes_under_way_ > most_bytes_under_way)
        keep_first(progress);
    }
    while (!under_way_.empty()) keep_first(progress);
  }

  void commit() {
    out_.commit(record_of(settings_, position_, inputs_));
    last_commit_ = Clock::now();
  }

 private:
  struct UnderWay {
    InputPosition after;
    std::int64_t file_bytes = 0;  // of all inputs
    std::size_t text_bytes = 0;
    std::future<TokenizedPiece> result;
  };

  // Whatever is wrong earlier in the inputs is told first.
  std::optional<TextPiece> next_piece(TextReader& reader, IngestProgress& progress) {
    try {
      return reader.next();
    } catch (const Error&) {
      while (!under_way_.empty()) keep_first(progress);
      throw;
    }
  }

  void start(TextPiece piece, WorkerPool& workers) {
    UnderWay entry{piece.after, bytes_before_[piece.input] + piece.file_bytes, piece.text.size(), {}};
    bytes_under_way_ += entry.text_bytes;
    entry.result = workers.start([this, piece = std::move(piece)] {
      return tokenize_piece(piece, tokenizer_, options_.text_key, options_.max_line_bytes);
    });
    under_way_.push_back(std::move(entry));
  }

  void keep_first(IngestProgress& progress) {
    UnderWay entry = std::move(under_way_.front());
    under_way_.pop_front();
    bytes_under_way_ -= entry.text_bytes;
    const TokenizedPiece piece = entry.result.get();
    std::span<const std::int32_t> rest = piece.tokens;
    std::size_t done = 0;
    for (const std::size_t end : piece.document_ends) {
      out_.append(rest.subspan(done, end - done));
      out_.end_document();
      done = end;
    }
    out_.append(rest.subspan(done));
    position_ = entry.after;
    if (std::chrono::duration<double>(Clock::now() - last_commit_).count() >=
        options_.seconds_between_commits)
      commit();
    progress.show_read({entry.file_bytes, out_.tokens()});
  }

  using Clock = std::chrono::steady_clock;

  const PrepareOptions& options_;
  const Tokenizer& tokenizer_;
  PartialTokens& out_;
  json settings_;
  std::vector<InputIdentity> inputs_;
  std::vector<std::int64_t> bytes_before_{0};  // each input, and behind the last one
  InputPosition position_;                     // behind what out_ holds
  std::deque<UnderWay> under_way_;
  std::size_t bytes_under_way_ = 0;
  Clock::time_point last_commit_ = Clock::now();
};

void warn_of_json(const fs::path& input) {
  if (without_compression(input).extension() == ".json")
    log_warning(fmt::format(
        "{}: read as one document of plain text; where each line is a JSON object, name it .jsonl",
        input.string()));
}

PreparedFiles write_files(const PrepareOptions& options, const Tokenizer& tokenizer, PartialTokens& partial,
                          Ingest& ingest) {
  const std::int64_t tokens = partial.tokens();
  SplitTokenWriter writer(
      options.output,
      {tokenizer.vocab_size(), tokenizer.name(), file_names(options.inputs), tokenizer.eos_token_id()},
      tokens, options.validation);
  IngestProgress progress(0);
  partial.copy_to(
      writer, [&](std::int64_t written) { progress.show_written(options.output.string(), written, tokens); });
  ingest.commit();  // a run killed between the two files' renames is unfinished, not a finished output
  return writer.finish();
}

}  // namespace

PreparedFiles prepare_tokens(const PrepareOptions& options, const Tokenizer& tokenizer) {
  if (options.inputs.empty()) fail(ExitCode::usage, "no input; give text or .jsonl files");
  check_output(options.output, options.validation);
  if (options.output.has_parent_path()) create_folders(options.output.parent_path());
  PartialTokens partial(options.output, tokenizer.vocab_size(), options.fresh);
  if (!options.fresh && partial.record().is_null()) refuse_existing(options.output, options.validation);
  Ingest ingest(options, tokenizer, partial);
  for (const fs::path& input : options.inputs) warn_of_json(input);
  ingest.run();
  if (partial.tokens() == 0) fail(ExitCode::data, "{}: no text in it", file_names(options.inputs));
  const PreparedFiles files = write_files(options, tokenizer, partial, ingest);
  partial.remove();
  return files;
}

}  // namespace flasheva
