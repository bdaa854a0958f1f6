// The tokenizer of tests/fixtures/tokenizer against ids of Hugging Face's `tokenizers`
// (tokenizer_fixtures.py), and what else callers rely on.
#include <gtest/gtest.h>

#include <charconv>
#include <future>
#include <nlohmann/json.hpp>
#include <random>

#include "src/core/file.h"
#include "src/io/tokenizer.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

const std::filesystem::path fixtures = std::filesystem::path(FLASHEVA_FIXTURES) / "tokenizer";

const json& cases_of(const char* variant) {
  static const json cases = json::parse(read_text_file(fixtures / "cases.json"));
  return cases.at(variant);
}

json fixture_json(const char* variant = "neox") {
  json root = json::parse(read_text_file(fixtures / "tokenizer.json"));
  root.merge_patch(cases_of(variant).at("patch"));
  return root;
}

std::unique_ptr<Tokenizer> tokenizer_of(const json& root) { return parse_tokenizer_json(root.dump(), "F"); }

std::string from_hex(const std::string& hex) {
  std::string text(hex.size() / 2, '\0');
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::uint8_t byte = 0;
    std::from_chars(hex.data() + 2 * i, hex.data() + 2 * i + 2, byte, 16);
    text[i] = static_cast<char>(byte);
  }
  return text;
}

Ids encode_in_pieces(const Tokenizer& tokenizer, std::string_view text, std::size_t bytes,
                     int* pieces = nullptr) {
  Ids ids;
  while (!text.empty()) {
    const std::size_t size = tokenizer.piece(text, bytes);
    const Ids more = tokenizer.encode(text.substr(0, size));
    ids.insert(ids.end(), more.begin(), more.end());
    text.remove_prefix(size);
    if (pieces != nullptr) ++*pieces;
  }
  return ids;
}

std::int64_t bytes_of(const Tokenizer& tokenizer, const Ids& ids) {
  std::int64_t bytes = 0;
  for (const std::int32_t id : ids) bytes += tokenizer.bytes_of(id);
  return bytes;
}

class BpeVariant : public testing::TestWithParam<const char*> {};

TEST_P(BpeVariant, GivesTheIdsOfTheTokenizersPackage) {
  const auto tokenizer = tokenizer_of(fixture_json(GetParam()));
  for (const json& one : cases_of(GetParam()).at("cases"))
    EXPECT_EQ(tokenizer->encode(from_hex(one[0])), one[1].get<Ids>()) << one[0];
}

// The package's decoded text, which has U+FFFD for bytes that are no UTF-8, is compared where there are none.
TEST_P(BpeVariant, DecodesAsTheTokenizersPackage) {
  const auto tokenizer = tokenizer_of(fixture_json(GetParam()));
  int compared = 0;
  for (const json& one : cases_of(GetParam()).at("cases")) {
    const Ids ids = one[1];
    const std::string theirs = from_hex(one[2]), ours = tokenizer->decode(ids);
    EXPECT_EQ(bytes_of(*tokenizer, ids), static_cast<std::int64_t>(ours.size()));
    if (theirs.find("\xef\xbf\xbd") != std::string::npos) continue;
    EXPECT_EQ(ours, theirs) << one[0];
    ++compared;
  }
  EXPECT_GT(compared, 100);
}

TEST_P(BpeVariant, PiecesGiveTheIdsOfTheWhole) {
  const auto tokenizer = tokenizer_of(fixture_json(GetParam()));
  const json& cases = cases_of(GetParam()).at("cases");
  std::mt19937_64 generator(1);
  int pieces = 0, texts = 0;
  for (; texts < 400; ++texts) {
    std::string text;
    for (int i = 0; i < 8; ++i) text += from_hex(cases[generator() % cases.size()][0]);
    const Ids whole = tokenizer->encode(text);
    for (const std::size_t bytes : {1, 2, 3, 7, 30})
      ASSERT_EQ(encode_in_pieces(*tokenizer, text, bytes, &pieces), whole)
          << bytes << " bytes: " << testing::PrintToString(text);
  }
  EXPECT_GT(pieces, 5 * 2 * texts);
}

INSTANTIATE_TEST_SUITE_P(All, BpeVariant, testing::Values("neox", "prefix_space", "added"),
                         [](const auto& info) { return std::string(info.param); });

TEST(BpeTokenizer, MergesAreStringsOrPairs) {
  json root = fixture_json();
  json lines = {"#version: 0.2"};
  for (const json& merge : root["model"]["merges"])
    lines.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  const auto pairs = tokenizer_of(root);
  root["model"]["merges"] = lines;
  const auto strings = tokenizer_of(root);
  for (const json& one : cases_of("neox").at("cases")) {
    const std::string text = from_hex(one[0]);
    EXPECT_EQ(strings->encode(text), pairs->encode(text));
  }
}

TEST(BpeTokenizer, APieceIsTheLongestThatMayBeCutOff) {
  const auto tokenizer = tokenizer_of(fixture_json());
  EXPECT_EQ(tokenizer->piece("one two three", 10), 7u);  // before " three"
  EXPECT_EQ(tokenizer->piece("one two three", 7), 7u);
  EXPECT_EQ(tokenizer->piece("one two three", 6), 3u);
  EXPECT_EQ(tokenizer->piece("one two three", 13), 13u);
  EXPECT_EQ(tokenizer->piece("one two three", 2), 3u);  // none so short: the next
  EXPECT_EQ(tokenizer->piece("one", 1), 3u);
  EXPECT_EQ(tokenizer->piece("one  two", 4), 3u);  // not within white space
  EXPECT_EQ(tokenizer->piece("one\r\n\ntwo", 5), 3u);
  EXPECT_EQ(tokenizer->piece("one\u3000 two", 6), 10u);
  EXPECT_EQ(tokenizer->piece("\u4e00\n\u4e8c", 4), 3u);
  EXPECT_EQ(tokenizer->piece("", 4), 0u);
}

TEST(BpeTokenizer, PrefixSpacesLeaveNoCutButBeforeSpaces) {
  const auto tokenizer = tokenizer_of(fixture_json("prefix_space"));
  EXPECT_EQ(tokenizer->piece("one\ntwo three", 8), 7u);
  EXPECT_EQ(tokenizer->piece("one\ntwo", 5), 7u);
}

// Time or memory that grew with the square of a word's length would never end here.
TEST(BpeTokenizer, WordsMayBeAsLongAsTheText) {
  const auto tokenizer = tokenizer_of(fixture_json());
  constexpr std::size_t bytes = 1 << 20;
  std::mt19937_64 generator(1);
  std::string letters(bytes, ' ');
  for (char& c : letters) c = static_cast<char>('a' + generator() % 26);
  for (const std::string& text : {std::string(bytes, 'a'), std::string(bytes, ' '), std::string(bytes, '\n'),
                                  std::string(bytes, '='), std::string(bytes, '7'), letters}) {
    EXPECT_TRUE(tokenizer->decode(tokenizer->encode(text)) == text);
  }
  EXPECT_LT(tokenizer->encode(letters).size(), bytes);
  std::string marks = "a";
  for (std::size_t i = 0; i < bytes / 4; ++i)
    marks += "\u0301\u0323";  // classes 230, 220: each pair out of order
  std::string sorted = "\u1ea1";
  for (std::size_t i = 1; i < bytes / 4; ++i) sorted += "\u0323";
  for (std::size_t i = 0; i < bytes / 4; ++i) sorted += "\u0301";
  EXPECT_TRUE(tokenizer->decode(tokenizer->encode(marks)) == sorted);
  const std::string malformed(bytes, '\xe2');
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(malformed)).size(), 3 * bytes);
}

TEST(BpeTokenizer, EncodesInManyThreadsAtOnce) {
  const auto tokenizer = tokenizer_of(fixture_json());
  const json& cases = cases_of("neox").at("cases");
  const auto mismatches = [&] {
    int count = 0;
    for (int round = 0; round < 5; ++round)
      for (const json& one : cases) count += tokenizer->encode(from_hex(one[0])) != one[1].get<Ids>();
    return count;
  };
  std::vector<std::future<int>> threads;
  for (int i = 0; i < 4; ++i) threads.push_back(std::async(std::launch::async, mismatches));
  for (auto& thread : threads) EXPECT_EQ(thread.get(), 0);
}

TEST(BpeTokenizer, SpecialAndUnknownTokensDecodeToNothing) {
  const auto tokenizer = tokenizer_of(fixture_json());
  EXPECT_EQ(tokenizer->vocab_size(), 2023);
  EXPECT_EQ(tokenizer->encode("<|endoftext|>a<|padding|>"), (Ids{0, tokenizer->encode("a")[0], 1}));
  EXPECT_EQ(tokenizer->decode({0, tokenizer->encode("a")[0], 1, 2023, -1}), "a");
  for (const std::int32_t none : {0, 1, 2023, -1}) EXPECT_EQ(tokenizer->bytes_of(none), 0);
  EXPECT_EQ(tokenizer->bytes_of(2000), 24);  // 24 spaces
}

class BpeFolder : public testing::Test {
 protected:
  void write(const char* name, const std::string& text) { write_file_atomically(folder_ / name, text); }
  std::optional<std::int32_t> eos() { return make_tokenizer(folder_.path().string())->eos_token_id(); }

  TemporaryFolder folder_;
};

TEST_F(BpeFolder, NamesTheEndOfText) {
  json root = fixture_json();
  write("tokenizer.json", root.dump());
  EXPECT_EQ(eos(), 0);  // <|endoftext|>
  write("special_tokens_map.json", R"({"eos_token": {"content": "<|padding|>"}})");
  EXPECT_EQ(eos(), 1);
  write("tokenizer_config.json", R"({"eos_token": "  "})");
  EXPECT_EQ(eos(), 2022);
  write("tokenizer_config.json", R"({"eos_token": null})");
  EXPECT_EQ(eos(), 1);
  write("tokenizer_config.json", R"({"eos_token": "</s>"})");
  expect_error(ExitCode::data, folder_.path().string() + ": eos_token </s> is no token of tokenizer.json",
               [&] { eos(); });
  write("tokenizer_config.json", "{");
  expect_error(ExitCode::data, "tokenizer_config.json: not JSON", [&] { eos(); });

  write("tokenizer_config.json", "{}");
  write("special_tokens_map.json", "{}");
  root["added_tokens"].erase(0);
  write("tokenizer.json", root.dump());
  EXPECT_EQ(eos(), std::nullopt);
}

TEST_F(BpeFolder, ItsFilesGiveItBack) {
  const std::string text = fixture_json("prefix_space").dump(3);
  write("tokenizer.json", text);
  write("tokenizer_config.json",
        R"({"tokenizer_class": "GPTNeoXTokenizer", "eos_token": "<|padding|>", "bos_token": "x"})");
  write("special_tokens_map.json", R"({ "eos_token": "<|padding|>" })");
  const TemporaryFolder written;
  make_tokenizer(folder_.path().string())->write_files(written.path());
  EXPECT_EQ(read_text_file(written / "tokenizer.json"), text);
  EXPECT_EQ(read_text_file(written / "special_tokens_map.json"), R"({ "eos_token": "<|padding|>" })");
  const json config = json::parse(read_text_file(written / "tokenizer_config.json"));
  EXPECT_EQ(config["tokenizer_class"], "PreTrainedTokenizerFast");
  EXPECT_EQ(config["add_prefix_space"], true);
  EXPECT_EQ(config["eos_token"], "<|padding|>");
  EXPECT_EQ(config["bos_token"], "x");
  const auto again = tokenizer_of_folder(written.path());
  EXPECT_EQ(again->name(), written.path().string());
  EXPECT_EQ(again->eos_token_id(), 1);
}

TEST_F(BpeFolder, WithoutAConfigOneIsWritten) {
  write("tokenizer.json", fixture_json().dump());
  const TemporaryFolder written;
  make_tokenizer(folder_.path().string())->write_files(written.path());
  EXPECT_FALSE(std::filesystem::exists(written / "special_tokens_map.json"));
  const json config = json::parse(read_text_file(written / "tokenizer_config.json"));
  EXPECT_EQ(config, (json{{"tokenizer_class", "PreTrainedTokenizerFast"},
                          {"clean_up_tokenization_spaces", false},
                          {"add_prefix_space", false},
                          {"eos_token", "<|endoftext|>"},
                          {"model_input_names", {"input_ids", "attention_mask"}},
                          {"model_max_length", 1000000000}}));
}

}  // namespace
}  // namespace flasheva
