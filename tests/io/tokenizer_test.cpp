#include "src/io/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "src/core/file.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

using nlohmann::json;

std::string all_bytes() {
  std::string text(256, '\0');
  std::iota(text.begin(), text.end(), '\0');
  return text;
}

std::string bytes_json() {
  const TemporaryFolder folder;
  make_tokenizer("bytes")->write_files(folder.path());
  return read_text_file(folder / "tokenizer.json");
}

TEST(BytesTokenizer, IdsAreByteValues) {
  const auto tokenizer = make_tokenizer("bytes");
  const std::vector<std::int32_t> ids = tokenizer->encode(all_bytes());
  for (std::int32_t i = 0; i < 256; ++i) EXPECT_EQ(ids[static_cast<std::size_t>(i)], i);
  EXPECT_EQ(tokenizer->decode(ids), all_bytes());
  EXPECT_EQ(tokenizer->encode("\xc3\xa9"), (std::vector<std::int32_t>{0xc3, 0xa9}));
  EXPECT_TRUE(tokenizer->encode("").empty());
  EXPECT_EQ(tokenizer->vocab_size(), 256);
  EXPECT_FALSE(tokenizer->eos_token_id());
  EXPECT_EQ(tokenizer->bytes_of(200), 1);
  EXPECT_EQ(tokenizer->name(), "bytes");
  EXPECT_EQ(tokenizer->decode({'a', 256, -1}), "a");
  EXPECT_EQ(tokenizer->bytes_of(256), 0);
}

TEST(BytesTokenizer, PiecesAreAsLongAsAllowed) {
  const auto tokenizer = make_tokenizer("bytes");
  EXPECT_EQ(tokenizer->piece("abcde", 3), 3u);
  EXPECT_EQ(tokenizer->piece("ab", 3), 2u);
}

TEST(BytesTokenizer, ItsFilesGiveItBack) {
  const TemporaryFolder folder;
  EXPECT_EQ(tokenizer_of_folder(folder.path()), nullptr);
  make_tokenizer("bytes")->write_files(folder.path());
  EXPECT_EQ(tokenizer_of_folder(folder.path())->name(), "bytes");
  EXPECT_EQ(make_tokenizer(folder.path().string())->name(), "bytes");
}

// GPT-2's table: '!' stands for itself, space is U+0120, newline U+010A, the soft hyphen U+0143.
TEST(BytesTokenizer, WritesGpt2Symbols) {
  const json vocab = json::parse(bytes_json())["model"]["vocab"];
  EXPECT_EQ(vocab.size(), 256u);
  EXPECT_EQ(vocab["!"], 0x21);
  EXPECT_EQ(vocab["\u0120"], 0x20);
  EXPECT_EQ(vocab["\u010a"], 0x0a);
  EXPECT_EQ(vocab["\u0100"], 0x00);
  EXPECT_EQ(vocab["\u0143"], 0xad);
  EXPECT_EQ(vocab["\u00ff"], 0xff);
}

TEST(MakeTokenizer, RefusesUnknownNamesAndFoldersWithout) {
  const TemporaryFolder folder;
  expect_error(ExitCode::usage, "unknown tokenizer 'byte'; give `bytes` or a folder",
               [] { make_tokenizer("byte"); });
  expect_error(ExitCode::data, "has no tokenizer.json", [&] { make_tokenizer(folder.path().string()); });
  write_file_atomically(folder / "tokenizer.json", "{");
  expect_error(ExitCode::data, "tokenizer.json: not JSON: ", [&] { make_tokenizer(folder.path().string()); });
}

TEST(MakeTokenizer, KnowsBytesWhereverWordsEnd) {
  json root = json::parse(bytes_json());
  root["post_processor"] = {{"type", "ByteLevel"}, {"trim_offsets", false}};
  root["pre_tokenizer"]["use_regex"] = true;  // matters to merges only
  EXPECT_EQ(parse_tokenizer_json(root.dump(), "F")->name(), "bytes");
}

}  // namespace
}  // namespace flasheva
