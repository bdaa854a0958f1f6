// `data prepare` killed and started again: the files at the end are those of a run that nothing disturbed.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "src/core/file.h"
#include "src/io/partial_tokens.h"
#include "src/io/prepare.h"
#include "tests/io/prepared_files.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Bytes, counted; fails from the N-th piece on, as a program would that is stopped there.
class Counting : public Tokenizer {
 public:
  explicit Counting(int failing_piece = -1) : failing_piece_(failing_piece) {}

  std::vector<std::int32_t> encode(std::string_view text) const override {
    if (calls_++ == failing_piece_) fail(ExitCode::other, "stopped");
    bytes_read_ += text.size();
    return bytes_->encode(text);
  }
  std::size_t piece(std::string_view text, std::size_t max_bytes) const override {
    return bytes_->piece(text, max_bytes);
  }
  std::string decode(const std::vector<std::int32_t>& tokens) const override {
    return bytes_->decode(tokens);
  }
  std::int64_t vocab_size() const override { return 257; }
  std::optional<std::int32_t> eos_token_id() const override { return 256; }
  std::int64_t bytes_of(std::int32_t token) const override { return token < 256; }
  std::string name() const override { return "counting"; }
  void write_files(const fs::path&) const override {}

  std::size_t bytes_read() const { return bytes_read_; }

 private:
  std::unique_ptr<Tokenizer> bytes_ = make_tokenizer("bytes");
  int failing_piece_;
  mutable std::atomic<int> calls_ = 0;
  mutable std::atomic<std::size_t> bytes_read_ = 0;
};

class PrepareResume : public testing::Test {
 protected:
  PrepareResume() {
    options_.inputs = {write("a.txt", std::string(5 << 18, 'a')),
                       write("b.jsonl.gz", gzip(some_json_lines(5 << 18))),
                       write("c.jsonl", some_json_lines(5 << 18, 2)),
                       write("d.jsonl.zst", zstd(some_json_lines(5 << 18, 3))),
                       write("e.txt.gz", gzip(std::string(5 << 18, 'e')))};
    options_.output = folder_ / "reference.h5";
    options_.validation = 0.1;
    options_.threads = 2;
    options_.seconds_between_commits = 0;
    const double start = seconds_now();
    prepare_tokens(options_, Counting());
    run_seconds_ = seconds_now() - start;
    options_.output = folder_ / "out.h5";
  }

  fs::path write(const std::string& name, const std::string& content) {
    FileWriter file(folder_ / name);
    file.write(content);
    file.close();
    return folder_ / name;
  }

  // Leaves out.h5.partial with some pieces in it.
  void interrupt() { interrupt_at(1000); }
  void interrupt_at(int piece) {
    PrepareOptions options = options_;
    options.threads = 1;
    expect_error(ExitCode::other, "stopped", [&] { prepare_tokens(options, Counting(piece)); });
    ASSERT_TRUE(fs::exists(journal()));
  }
  fs::path partial() const { return folder_ / "out.h5.partial"; }
  fs::path journal() const { return partial() / "journal.json"; }

  void expect_as_reference() const {
    for (const char* ending : {".h5", "-validation.h5"})
      EXPECT_TRUE(read_text_file(folder_ / ("out" + std::string(ending))) ==
                  read_text_file(folder_ / ("reference" + std::string(ending))))
          << ending;
    EXPECT_FALSE(fs::exists(partial()));
  }

  TemporaryFolder folder_{memory_folder()};
  PrepareOptions options_;
  double run_seconds_ = 0;
};

// At random moments of reading, committing, writing the files and tidying up.
TEST_F(PrepareResume, KilledAtRandomMomentsGivesTheSameBytes) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> moment(0, run_seconds_);
  int kept = 0, finished = 0;
  for (int kills = 0; kills < 10;) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      try {
        prepare_tokens(options_, Counting());
        ::_exit(0);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        ::_exit(1);
      }
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(moment(random)));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    const bool killed = WIFSIGNALED(status), unfinished = fs::exists(journal());
    ASSERT_TRUE(killed || WEXITSTATUS(status) == 0);
    kills += killed;
    kept += killed && unfinished;
    if (killed && (unfinished || !fs::exists(folder_ / "out-validation.h5"))) continue;
    ++finished;
    fs::remove_all(partial());  // a kill may have left it half removed
    expect_as_reference();
    for (const char* name : {"out.h5", "out-validation.h5"}) fs::remove(folder_ / name);
  }
  prepare_tokens(options_, Counting());
  expect_as_reference();
  EXPECT_GT(kept, 2);
  RecordProperty("kills_that_left_a_journal", kept);
  RecordProperty("runs_finished", finished);
}

TEST_F(PrepareResume, NothingThatWasKeptIsTokenizedAgain) {
  const Counting whole;
  PrepareOptions options = options_;
  options.output = folder_ / "whole.h5";
  prepare_tokens(options, whole);
  for (const int piece : {1, 2, 1000, 5000}) {  // in the first text, at its end, in lines of the others
    interrupt_at(piece);
    const std::int64_t kept = nlohmann::json::parse(read_text_file(journal())).at("tokens");
    const std::int64_t documents = nlohmann::json::parse(read_text_file(journal())).at("documents");
    EXPECT_GT(kept, 0);
    const Counting rest;
    prepare_tokens(options_, rest);
    EXPECT_EQ(static_cast<std::int64_t>(whole.bytes_read() - rest.bytes_read()), kept - documents) << piece;
    expect_as_reference();
    for (const char* name : {"out.h5", "out-validation.h5"}) fs::remove(folder_ / name);
  }
}

TEST_F(PrepareResume, WhatWasWrittenAfterTheLastCommitIsCutOff) {
  interrupt();
  for (const char* name : {"tokens.bin", "documents.bin"}) {
    const std::string content = read_text_file(partial() / name);
    write("out.h5.partial/" + std::string(name), content + std::string(999, '\x55'));
  }
  prepare_tokens(options_, Counting());
  expect_as_reference();
}

TEST_F(PrepareResume, OtherSettingsAreRefusedAndLoseNothing) {
  interrupt();
  const auto refused = [&](const char* flag, const Tokenizer& tokenizer, auto change) {
    PrepareOptions options = options_;
    change(options);
    expect_error(ExitCode::usage,
                 "out.h5.partial: was begun with another " + std::string(flag) +
                     "; repeat that command, or start anew with --fresh",
                 [&] { prepare_tokens(options, tokenizer); });
  };
  refused("--input", Counting(), [](PrepareOptions& o) { o.inputs.pop_back(); });
  refused("--input", Counting(), [](PrepareOptions& o) { std::swap(o.inputs[1], o.inputs[2]); });
  refused("--text-key", Counting(), [](PrepareOptions& o) { o.text_key = "content"; });
  refused("--tokenizer", Counting(), [](PrepareOptions& o) { o.tokenizer_id = "other"; });
  refused("--tokenizer", *make_tokenizer("bytes"), [](PrepareOptions&) {});
  options_.threads = 3;  // may differ
  prepare_tokens(options_, Counting());
  expect_as_reference();
}

TEST_F(PrepareResume, AnInputThatChangedAfterItWasReadIsRefused) {
  interrupt();
  write("a.txt", "other text");
  expect_error(ExitCode::usage, "a.txt: has changed since ", [&] { prepare_tokens(options_, Counting()); });
  options_.fresh = true;
  prepare_tokens(options_, Counting());
  EXPECT_FALSE(fs::exists(partial()));
  EXPECT_EQ(read_prepared(folder_ / "out.h5").offsets[1], 11u);
}

TEST_F(PrepareResume, AnInputThatWasNotReadYetMayChange) {
  interrupt();
  write("e.txt.gz", gzip("the end"));
  prepare_tokens(options_, Counting());
  const Prepared end = read_prepared(folder_ / "out-validation.h5");
  EXPECT_EQ(end.tokens.size() - 8, end.offsets[end.offsets.size() - 2]);
}

TEST_F(PrepareResume, DamagedJournalsAndFilesAreRefused) {
  interrupt();
  const std::string good = read_text_file(journal());
  const auto refused = [&](const std::string& message) {
    expect_error(ExitCode::data, message, [&] { prepare_tokens(options_, Counting()); });
  };
  for (const char* content : {"", "{", "[]", "{\"tokens\": 1, \"documents\": 1}",
                              "{\"tokens\": -1, \"documents\": 1, \"record\": {}}",
                              "{\"tokens\": \"x\", \"documents\": 1, \"record\": {}}",
                              "{\"tokens\": 1, \"documents\": 1, \"record\": {}}"}) {
    write("out.h5.partial/journal.json", content);
    refused("journal.json: damaged");
  }
  for (const char* position : {"[9, 0, 1]", "[0, -1, 1]", "[0]"}) {
    nlohmann::json journal_json = nlohmann::json::parse(good);
    journal_json["record"]["position"] = nlohmann::json::parse(position);
    write("out.h5.partial/journal.json", journal_json.dump());
    refused("journal.json: damaged");
  }
  nlohmann::json beyond = nlohmann::json::parse(good);
  beyond["record"]["position"] = {2, std::int64_t{1} << 40, 1};
  write("out.h5.partial/journal.json", beyond.dump());
  refused("c.jsonl: shorter than when it was read before");
  const std::string ends = read_text_file(partial() / "documents.bin");
  for (const std::string& end : {std::string(7, '\xff') + '\x7f', std::string(8, '\xff')}) {
    write("out.h5.partial/journal.json", good);
    write("out.h5.partial/documents.bin", end + ends.substr(8));
    refused("documents.bin: damaged");
  }
  write("out.h5.partial/tokens.bin", "short");
  refused("tokens.bin: 5 bytes, its journal says ");
}

TEST_F(PrepareResume, AFinishedOutputIsReplacedOnlyOnRequest) {
  const fs::path old = write("out-validation.h5", "made by someone");
  expect_error(ExitCode::usage, "out-validation.h5: exists already; choose another --output",
               [&] { prepare_tokens(options_, Counting()); });
  EXPECT_EQ(read_text_file(old), "made by someone");
  EXPECT_FALSE(fs::exists(partial()));
  options_.fresh = true;
  prepare_tokens(options_, Counting());
  expect_as_reference();
}

TEST_F(PrepareResume, TwoProgramsDoNotWriteTheSameOutput) {
  interrupt();
  const PartialTokens other(options_.output, 257, false);
  expect_error(ExitCode::data, "out.h5.partial: another program is writing there now",
               [&] { prepare_tokens(options_, Counting()); });
}

}  // namespace
}  // namespace flasheva
