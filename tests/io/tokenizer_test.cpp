#include "src/io/tokenizer.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <ostream>

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
  EXPECT_THROW(tokenizer->decode({256}), std::logic_error);
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

struct Refusal {
  const char* name;
  std::function<void(json&)> change;
  std::string message;
};
void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }

class TokenizerJson : public testing::TestWithParam<Refusal> {};

TEST_P(TokenizerJson, IsRefusedNamingThePart) {
  json root = json::parse(bytes_json());
  GetParam().change(root);
  expect_error(ExitCode::data, "F: " + GetParam().message, [&] { parse_tokenizer_json(root.dump(), "F"); });
}

INSTANTIATE_TEST_SUITE_P(
    Unsupported, TokenizerJson,
    testing::Values(
        Refusal{"NotAnObject", [](json& j) { j = json::array(); }, "not a JSON object"},
        Refusal{"Normalizer",
                [](json& j) {
                  j["normalizer"] = {{"type", "NFC"}};
                },
                "normalizer (NFC) is not supported"},
        Refusal{"AddedTokens",
                [](json& j) {
                  j["added_tokens"] = {{{"id", 0}}};
                },
                "added_tokens (array) is not supported"},
        Refusal{"Truncation",
                [](json& j) {
                  j["truncation"] = {{"max_length", 5}};
                },
                "truncation (object)"},
        Refusal{"Padding",
                [](json& j) {
                  j["padding"] = {{"strategy", "x"}};
                },
                "padding (object)"},
        Refusal{"PreTokenizer",
                [](json& j) {
                  j["pre_tokenizer"] = {{"type", "Whitespace"}};
                },
                "pre_tokenizer (Whitespace) is not supported"},
        Refusal{"NoPreTokenizer", [](json& j) { j.erase("pre_tokenizer"); }, "pre_tokenizer (null)"},
        Refusal{"PrefixSpace", [](json& j) { j["pre_tokenizer"]["add_prefix_space"] = true; },
                "pre_tokenizer.add_prefix_space is not false"},
        Refusal{"PostProcessor",
                [](json& j) {
                  j["post_processor"] = {{"type", "TemplateProcessing"}};
                },
                "post_processor (TemplateProcessing)"},
        Refusal{"Decoder", [](json& j) { j["decoder"] = nullptr; }, "decoder (null)"},
        Refusal{"NoModel", [](json& j) { j.erase("model"); }, "model is not an object"},
        Refusal{"ModelType", [](json& j) { j["model"]["type"] = "Unigram"; },
                "model (Unigram) is not supported"},
        Refusal{"Merges", [](json& j) { j["model"]["merges"] = {"a b"}; },
                "model.merges (array) is not supported"},
        Refusal{"Dropout", [](json& j) { j["model"]["dropout"] = 0.1; }, "model.dropout (0.1)"},
        Refusal{"Prefix", [](json& j) { j["model"]["continuing_subword_prefix"] = "##"; },
                "model.continuing_subword_prefix (\"##\")"},
        Refusal{"Suffix", [](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; },
                "model.end_of_word_suffix"},
        Refusal{"NoVocab", [](json& j) { j["model"].erase("vocab"); }, "model.vocab is not an object"},
        Refusal{"VocabSize", [](json& j) { j["model"]["vocab"]["ab"] = 256; },
                "model.vocab has 257 entries, not 256"},
        Refusal{"OtherId", [](json& j) { j["model"]["vocab"]["a"] = 98; },
                "model.vocab gives the symbol of byte 97 the id 98"},
        Refusal{"RealId", [](json& j) { j["model"]["vocab"]["a"] = 97.0; },
                "model.vocab gives the symbol of byte 97 the id 97.0"},
        Refusal{"OtherSymbol",
                [](json& j) {
                  j["model"]["vocab"].erase("a");
                  j["model"]["vocab"]["\u4e00"] = 97;
                },
                "model.vocab gives the symbol of byte 97 the id null"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(TokenizerJson, AcceptsWhatChangesNoId) {
  json root = json::parse(bytes_json());
  root["post_processor"] = {{"type", "ByteLevel"}, {"trim_offsets", false}};
  root["pre_tokenizer"]["use_regex"] = true;  // where text is cut matters to merges only
  root["model"].erase("dropout");
  root["model"]["end_of_word_suffix"] = "";
  EXPECT_EQ(parse_tokenizer_json(root.dump(), "F")->name(), "bytes");
}

TEST(TokenizerJson, DeepNestingIsNoDanger) {
  const std::string deep = std::string(1000000, '[') + std::string(1000000, ']');
  expect_error(ExitCode::data, "F: not a JSON object", [&] { parse_tokenizer_json(deep, "F"); });
}

}  // namespace
}  // namespace flasheva
