// Every format of input gives the same tokens, on any number of threads; what is broken is named by its
// place.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>

#include "src/core/file.h"
#include "src/io/prepare.h"
#include "tests/io/prepared_files.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;

class PrepareFormats : public testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& content) {
    FileWriter file(folder_ / name);
    file.write(content);
    file.close();
    return folder_ / name;
  }

  Prepared prepare(std::vector<fs::path> inputs, int threads = 1, const Tokenizer& tokenizer = *bytes()) {
    PrepareOptions options{std::move(inputs), folder_ / "out.h5"};
    options.threads = threads;
    options.fresh = true;
    prepare_tokens(options, tokenizer);
    return read_prepared(options.output);
  }

  // A run of `inputs` ends with Error{data} and this message, and leaves nothing.
  void expect_refused(const fs::path& input, const std::string& message,
                      std::size_t max_line_bytes = 1 << 20) {
    PrepareOptions options{{input}, folder_ / "refused.h5"};
    options.max_line_bytes = max_line_bytes;
    expect_error(ExitCode::data, input.string() + message, [&] { prepare_tokens(options, *bytes()); });
    EXPECT_FALSE(fs::exists(options.output));
    EXPECT_FALSE(fs::exists(folder_ / "refused.h5.partial"));
  }

  static const std::unique_ptr<Tokenizer>& bytes() {
    static const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer("bytes");
    return tokenizer;
  }

  TemporaryFolder folder_{memory_folder()};
};

TEST_F(PrepareFormats, CompressedLinesGiveTheSameTokens) {
  const std::string lines = some_json_lines(5 << 19), first = lines.substr(0, 1'000'001),
                    second = lines.substr(1'000'001);
  const Prepared plain = prepare({write("a.jsonl", lines)});
  ASSERT_GT(plain.offsets.size(), 1000u);
  EXPECT_EQ(plain, prepare({write("a.jsonl.gz", gzip(lines))}));
  EXPECT_EQ(plain, prepare({write("b.jsonl.gz", gzip(first) + gzip("") + gzip(second))}));
  EXPECT_EQ(plain, prepare({write("a.jsonl.zst", zstd(lines))}));
  EXPECT_EQ(plain, prepare({write("b.jsonl.zst", zstd(first) + zstd("") + zstd(second))}));
}

TEST_F(PrepareFormats, CompressedTextGivesTheSameTokens) {
  std::string text;
  while (text.size() < (5 << 19)) text += "Some text, number " + std::to_string(text.size()) + ".\n";
  const Prepared plain = prepare({write("a.txt", text)});
  ASSERT_EQ(plain.tokens.size(), text.size());
  EXPECT_TRUE(std::equal(text.begin(), text.end(), plain.tokens.begin()));
  EXPECT_EQ(plain.offsets, (std::vector<std::uint64_t>{0, text.size()}));
  EXPECT_EQ(plain, prepare({write("a.txt.gz", gzip(text))}));
  EXPECT_EQ(plain, prepare({write("a.zst", zstd(text))}));
}

// Pieces end at, and one byte to either side of, the end of the text.
TEST_F(PrepareFormats, TextOfWholePiecesIsOneDocument) {
  for (const std::size_t size : {std::size_t{1} << 20, std::size_t{2} << 20, (std::size_t{2} << 20) + 1}) {
    const Prepared plain = prepare({write("a.txt", std::string(size, 'x')), write("empty.txt", "")});
    EXPECT_EQ(plain.offsets, (std::vector<std::uint64_t>{0, size, size}));
  }
}

// Ends documents with id 256 and gives its pieces to threads that take different times.
class SlowAtTimes : public Tokenizer {
 public:
  std::vector<std::int32_t> encode(std::string_view text) const override {
    const int call = calls_++;
    for (volatile int i = 0; i < (call % 3) * 1000;) i = i + 1;
    return bytes_->encode(text);
  }
  std::size_t piece(std::string_view text, std::size_t) const override {
    return std::min<std::size_t>(100'000, text.size());
  }
  std::string decode(const std::vector<std::int32_t>& tokens) const override {
    return bytes_->decode(tokens);
  }
  std::int64_t vocab_size() const override { return 70'000; }
  std::optional<std::int32_t> eos_token_id() const override { return 69'999; }
  std::int64_t bytes_of(std::int32_t token) const override { return token < 256; }
  std::string name() const override { return "slow at times"; }
  void write_files(const fs::path&) const override {}

 private:
  std::unique_ptr<Tokenizer> bytes_ = make_tokenizer("bytes");
  mutable std::atomic<int> calls_ = 0;
};

TEST_F(PrepareFormats, AnyNumberOfThreadsGivesTheSameBytes) {
  const std::vector<fs::path> inputs = {write("a.txt", std::string(1'500'000, 'x')),
                                        write("b.jsonl.gz", gzip(some_json_lines(2 << 20))),
                                        write("c.txt", ""), write("d.jsonl", some_json_lines(3 << 20, 2))};
  const Prepared one = prepare(inputs, 1, SlowAtTimes());
  const std::string bytes_of_one = read_text_file(folder_ / "out.h5");
  EXPECT_EQ(one.tokens[1'500'000], 69'999);
  EXPECT_EQ(one.tokens.back(), 69'999);
  for (const int threads : {2, 3, 8}) {
    EXPECT_EQ(one, prepare(inputs, threads, SlowAtTimes()));
    EXPECT_TRUE(bytes_of_one == read_text_file(folder_ / "out.h5")) << threads;
  }
}

TEST_F(PrepareFormats, TheTextsKeyCanBeNamed) {
  const fs::path lines = write("a.jsonl", "{\"content\": \"ab\", \"text\": 1}\n");
  PrepareOptions options{{lines}, folder_ / "named.h5"};
  options.text_key = "content";
  prepare_tokens(options, *bytes());
  EXPECT_EQ(read_prepared(options.output).tokens, (std::vector<std::int32_t>{'a', 'b'}));
}

TEST_F(PrepareFormats, BrokenCompressionIsNamedWithItsByte) {
  const std::string text = some_json_lines(1 << 20), zipped = gzip(text), framed = zstd(text);
  const auto cut = [](const std::string& data) { return data.substr(0, data.size() / 2); };
  expect_refused(write("a.jsonl.gz", cut(zipped)),
                 fmt::format(": the gzip data ends too early, at byte {};", zipped.size() / 2));
  expect_refused(write("a.jsonl.zst", cut(framed)),
                 fmt::format(": the Zstandard data ends too early, at byte {};", framed.size() / 2));
  expect_refused(write("b.gz", zipped.substr(0, zipped.size() - 1)), ": the gzip data ends too early");
  expect_refused(write("b.zst", framed.substr(0, framed.size() - 1)), ": the Zstandard data ends too early");
  expect_refused(write("empty.gz", ""), ": the gzip data ends too early, at byte 0;");
  expect_refused(write("empty.zst", ""), ": the Zstandard data ends too early, at byte 0;");
  expect_refused(write("c.gz", "plain text"), ": not valid gzip at byte 2 (incorrect header check);");
  expect_refused(write("c.zst", "plain text"), ": not valid Zstandard at byte");
  expect_refused(write("d.gz", zipped + "more"), ": not valid gzip at byte");
  std::string wrong_sum = zipped;
  wrong_sum[wrong_sum.size() - 8] ^= 1;
  expect_refused(write("e.gz", wrong_sum), ": not valid gzip at byte");
}

TEST_F(PrepareFormats, WhatIsNoTextIsNamed) {
  using namespace std::string_literals;
  expect_refused(write("a.jsonl", gzip("text")), ": a gzip file; give it a name that ends in .gz");
  expect_refused(write("a.txt", zstd("text")), ": a Zstandard file; give it a name that ends in .zst");
  expect_refused(write("a.txt.GZ", gzip("text")), ": a gzip file; give it a name that ends in .gz");
  for (const auto& [start, name] : {std::pair{"PAR1\x15\x04"s, "a Parquet"},
                                    {"\x89HDF\r\n\x1a\n"s, "an HDF5"},
                                    {"\xfd\x37zXZ\0\0"s, "an xz"},
                                    {"BZh91AY&SY"s, "a bzip2"},
                                    {"PK\x03\x04\x14"s, "a zip"},
                                    {"\xff\xfe"
                                     "a\0b\0"s,
                                     "a UTF-16"}})
    expect_refused(write("corpus", start), ": "s + name + " file; UTF-8 text and .jsonl are read");
  EXPECT_EQ(prepare({write("b.txt", "PAR")}).tokens.size(), 3u);
}

TEST_F(PrepareFormats, JsonLinesHaveTwoNamesInAnyCase) {
  const std::string lines = some_json_lines(1000);
  const Prepared expected = prepare({write("a.jsonl", lines)});
  for (const char* name : {"a.ndjson", "A.JSONL"}) EXPECT_EQ(prepare({write(name, lines)}), expected) << name;
  EXPECT_EQ(prepare({write("a.ndjson.gz", gzip(lines))}), expected);
}

TEST_F(PrepareFormats, JsonIsTextWithAWarning) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(prepare({write("a.json", "{\"text\": 1}")}).tokens.size(), 11u);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("a.json: read as one document of plain text"),
            std::string::npos);
}

TEST_F(PrepareFormats, TheFirstBrokenPlaceOfTheInputsIsNamed) {
  std::string lines = some_json_lines(5 << 19);
  const auto number = std::count(lines.begin(), lines.end(), '\n') + 1;
  lines += "{\"text\": 1}\n" + some_json_lines(2 << 20);
  expect_refused(write("a.jsonl", lines), fmt::format(":{}: `text` is number", number));
  const std::string zipped = gzip(lines);
  expect_refused(write("a.jsonl.gz", zipped.substr(0, zipped.size() - 9)),
                 fmt::format(":{}: `text` is number", number));
}

TEST_F(PrepareFormats, LinesBeyondTheLimitAreNamed) {
  const std::string part = ":2: a line of more than 1.0 MiB; divide the document";
  const std::string start = "{\"text\": \"a\"}\n{\"text\": \"", end = "\"}\n{\"text\": \"b\"}\n";
  expect_refused(write("a.jsonl", start + std::string(1 << 20, 'x') + end), part);
  expect_refused(write("b.jsonl", start + std::string(5 << 20, 'x')), part);
  expect_refused(write("c.jsonl.zst", zstd(start + std::string(20 << 20, 'x') + end)), part);
  expect_refused(write("d.jsonl", start + std::string(200, 'x') + end), ":2: a line of more than 100 B", 100);
}

// Finds no place to cut.
class NeverCuts : public SlowAtTimes {
 public:
  std::size_t piece(std::string_view text, std::size_t) const override { return text.size(); }
};

TEST_F(PrepareFormats, TextWithNoPlaceToCutIsReadWholeUpToTheLimit) {
  const fs::path text = write("a.txt", std::string(3 << 20, 'x'));
  EXPECT_EQ(prepare({text}, 1, NeverCuts()).tokens.size(), (3u << 20) + 1);
  PrepareOptions options{{text}, folder_ / "uncut.h5"};
  options.max_line_bytes = 1 << 20;
  expect_error(ExitCode::data, "a.txt: no place to divide the text in 2.0 MiB from byte 0 on;",
               [&] { prepare_tokens(options, NeverCuts()); });
}

}  // namespace
}  // namespace flasheva
