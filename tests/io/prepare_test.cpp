#include "src/io/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "src/core/file.h"
#include "src/io/token_file.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;
using Offsets = std::vector<std::uint64_t>;
using testing::HasSubstr;

std::string text_of(const fs::path& path) {
  TokenFile file(path);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.info().tokens));
  file.read_tokens(0, tokens);
  return make_tokenizer("bytes")->decode(tokens);
}

Offsets offsets_of(const fs::path& path) { return TokenFile(path).document_offsets(); }

class Prepare : public testing::Test {
 protected:
  fs::path write(const char* name, const std::string& text) {
    write_file_atomically(folder_ / name, text);
    return folder_ / name;
  }

  PreparedFiles prepare(std::vector<fs::path> inputs, double validation = 0) {
    return prepare_tokens({std::move(inputs), folder_ / "out.h5", validation}, *make_tokenizer("bytes"));
  }

  TemporaryFolder folder_;
};

TEST_F(Prepare, ATextFileIsADocument) {
  const PreparedFiles summary = prepare({write("a.txt", "hello\n"), write("b.txt", "w\xff\n")});
  EXPECT_EQ(summary.train.path, folder_ / "out.h5");
  EXPECT_EQ(summary.train.tokens, 9);
  EXPECT_EQ(summary.train.documents, 2);
  EXPECT_FALSE(summary.validation);
  EXPECT_EQ(text_of(folder_ / "out.h5"), "hello\nw\xff\n");
  EXPECT_EQ(offsets_of(folder_ / "out.h5"), (Offsets{0, 6, 9}));
  const TokenFile file(folder_ / "out.h5");
  EXPECT_EQ(file.info().vocab_size, 256);
  EXPECT_EQ(file.info().tokenizer, "bytes");
  EXPECT_EQ(file.info().source, "a.txt, b.txt");
}

TEST_F(Prepare, AJsonLineIsADocument) {
  prepare(
      {write("a.jsonl", "{\"text\": \"one\\n\", \"id\": 1}\r\n\n{\"text\": \"\"}\n{\"text\":\"\\u00e9\"}")});
  EXPECT_EQ(text_of(folder_ / "out.h5"), "one\n\xc3\xa9");
  EXPECT_EQ(offsets_of(folder_ / "out.h5"), (Offsets{0, 4, 4, 6}));
}

TEST_F(Prepare, BrokenLinesAreNamed) {
  const auto refused = [&](const std::string& line, const std::string& message) {
    const fs::path path = write("a.jsonl", "{\"text\": \"one\"}\n\n" + line + "\n");
    expect_error(ExitCode::data, path.string() + ":3: " + message, [&] { prepare({path}); });
    EXPECT_FALSE(fs::exists(folder_ / "out.h5"));
  };
  refused("{\"text\": \"tw", "not JSON");
  refused("{\"text\": \"\xff\"}", "not JSON");
  refused("{\"content\": \"two\"}", "has no key `text`; name the text's key with --text-key");
  refused("{\"text\": 2}", "`text` is number, not a string");
  refused("[\"text\"]", "is array, not a JSON object");
  refused("\"text\"", "is string, not a JSON object");
}

TEST_F(Prepare, TheLastFractionIsForValidation) {
  const PreparedFiles summary = prepare({write("a.txt", "0123456789"), write("b.txt", "abcdefghij")}, 0.3);
  const fs::path validation = folder_ / "out-validation.h5";
  ASSERT_TRUE(summary.validation);
  EXPECT_EQ(summary.validation->path, validation);
  EXPECT_EQ(summary.validation->tokens, 6);
  EXPECT_EQ(summary.train.tokens, 14);
  EXPECT_EQ(text_of(folder_ / "out.h5"), "0123456789abcd");
  EXPECT_EQ(text_of(validation), "efghij");
  EXPECT_EQ(offsets_of(folder_ / "out.h5"), (Offsets{0, 10, 14}));
  EXPECT_EQ(offsets_of(validation), (Offsets{0, 6}));
  EXPECT_EQ(TokenFile(validation).info().source, "a.txt, b.txt");
  EXPECT_FALSE(fs::exists(folder_ / "out.h5.partial"));
}

TEST_F(Prepare, ASplitAtADocumentsEndCutsNone) {
  prepare({write("a.txt", "0123456789"), write("b.txt", "abcde"), write("c.txt", "fghij")}, 0.5);
  EXPECT_EQ(offsets_of(folder_ / "out.h5"), (Offsets{0, 10}));
  EXPECT_EQ(offsets_of(folder_ / "out-validation.h5"), (Offsets{0, 5, 10}));
}

TEST_F(Prepare, LongInputComesThroughPieces) {
  std::string text;
  for (int i = 0; text.size() < (std::size_t{5} << 19); ++i) text += std::to_string(i) + ' ';  // 2.5 pieces
  const PreparedFiles summary = prepare({write("a.txt", text)}, 0.25);
  const auto cut = static_cast<std::size_t>(summary.train.tokens);
  EXPECT_EQ(text_of(folder_ / "out.h5"), text.substr(0, cut));
  EXPECT_EQ(text_of(folder_ / "out-validation.h5"), text.substr(cut));
}

// A tokenizer with an end-of-sequence token: id 256.
class WithEos : public Tokenizer {
 public:
  std::vector<std::int32_t> encode(std::string_view text) const override { return bytes_->encode(text); }
  std::size_t piece(std::string_view text, std::size_t) const override {
    return std::min<std::size_t>(2, text.size());
  }
  std::string decode(const std::vector<std::int32_t>& tokens) const override {
    return bytes_->decode(tokens);
  }
  std::int64_t vocab_size() const override { return 257; }
  std::optional<std::int32_t> eos_token_id() const override { return 256; }
  std::int64_t bytes_of(std::int32_t token) const override { return token < 256; }
  std::string name() const override { return "with eos"; }
  void write_files(const fs::path&) const override {}

 private:
  std::unique_ptr<Tokenizer> bytes_ = make_tokenizer("bytes");
};

TEST_F(Prepare, DocumentsEndWithEos) {
  prepare_tokens({{write("a.txt", "abc"), write("b.txt", "")}, folder_ / "out.h5", 0}, WithEos());
  TokenFile file(folder_ / "out.h5");
  ASSERT_EQ(file.info().tokens, 5);
  std::vector<std::int32_t> tokens(5);
  file.read_tokens(0, tokens);
  EXPECT_EQ(tokens, (std::vector<std::int32_t>{'a', 'b', 'c', 256, 256}));
  EXPECT_EQ(file.document_offsets(), (Offsets{0, 4, 5}));
  EXPECT_EQ(file.info().eos_token_id, 256);
  EXPECT_EQ(file.info().tokenizer, "with eos");
}

TEST_F(Prepare, RefusesImpossibleRequests) {
  const fs::path text = write("a.txt", "some text");
  expect_error(ExitCode::usage, "no input", [&] { prepare({}); });
  for (const double fraction : {-0.1, 1.0, std::nan("")})
    expect_error(ExitCode::usage, "must be a fraction from 0 to below 1", [&] { prepare({text}, fraction); });
  expect_error(ExitCode::usage, "must end in .h5", [&] {
    prepare_tokens({{text}, folder_ / "out.txt", 0}, *make_tokenizer("bytes"));
  });
  expect_error(ExitCode::data, "9 tokens leave 0 for validation", [&] { prepare({text}, 0.01); });
  expect_error(ExitCode::data, "missing.txt: cannot read: No such file",
               [&] { prepare({folder_ / "missing.txt"}); });
  expect_error(ExitCode::data, "Is a directory", [&] { prepare({folder_.path()}); });
  expect_error(ExitCode::data, "empty.txt: no text in it", [&] { prepare({write("empty.txt", "")}); });
  EXPECT_FALSE(fs::exists(folder_ / "out.h5"));
  EXPECT_FALSE(fs::exists(folder_ / "out.h5.partial"));
}

TEST_F(Prepare, MakesTheOutputsFolder) {
  const fs::path text = write("a.txt", "some text");
  prepare_tokens({{text}, folder_ / "new" / "folder" / "out.h5", 0}, *make_tokenizer("bytes"));
  EXPECT_EQ(text_of(folder_ / "new" / "folder" / "out.h5"), "some text");
}

TEST_F(Prepare, InspectDescribesAndVerifies) {
  prepare({write("a.txt", "hello\nworld")});
  const std::string text = inspect_token_file(folder_ / "out.h5");
  EXPECT_THAT(text, HasSubstr("tokens        11 (uint16)\n"));
  EXPECT_THAT(text, HasSubstr("vocab_size    256, largest id 119\n"));
  EXPECT_THAT(text, HasSubstr("tokenizer     bytes\n"));
  EXPECT_THAT(text, HasSubstr("documents     1\n"));
  EXPECT_THAT(text, HasSubstr("loss_mask     none: every target counts\n"));
  EXPECT_THAT(text, HasSubstr("starts with   hello\\x0aworld\n"));

  const fs::path masked = fs::path(FLASHEVA_FIXTURES) / "tokens-masked.h5";
  EXPECT_THAT(inspect_token_file(masked), HasSubstr("loss_mask     334 of 1000 tokens count as targets\n"));
  EXPECT_THAT(inspect_token_file(masked), HasSubstr("starts with   0 7 14 21"));
}

}  // namespace
}  // namespace flasheva
