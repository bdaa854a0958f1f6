// What of a tokenizer.json is refused, and what is not: each starts from the fixture's.
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <ostream>

#include "src/core/file.h"
#include "src/io/tokenizer.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

using nlohmann::json;

json fixture_json() {
  return json::parse(
      read_text_file(std::filesystem::path(FLASHEVA_FIXTURES) / "tokenizer" / "tokenizer.json"));
}

struct Refusal {
  const char* name;
  std::function<void(json&)> change;
  std::string message;
};
void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }

json of_type(const char* type) { return {{"type", type}}; }

class TokenizerJson : public testing::TestWithParam<Refusal> {};

TEST_P(TokenizerJson, IsRefusedNamingThePart) {
  json root = fixture_json();
  GetParam().change(root);
  expect_error(ExitCode::data, "F: " + GetParam().message, [&] { parse_tokenizer_json(root.dump(), "F"); });
}

TEST(DeepTokenizerJson, IsRefusedNamingThePart) {
  json root = fixture_json();
  root["model"]["vocab"]["a"] = "deep";
  std::string text = root.dump();
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  text.replace(text.find("\"deep\""), 6, deep);
  expect_error(ExitCode::data, "F: model.vocab gives a the id array; ids must be",
               [&] { parse_tokenizer_json(text, "F"); });
}

const std::vector<Refusal> stages = {
    {"NotAnObject", [](json& j) { j = json::array(); }, "not a JSON object"},
    {"Truncation", [](json& j) { j["truncation"]["max_length"] = 5; },
     "truncation (object) is not supported"},
    {"Padding", [](json& j) { j["padding"]["strategy"] = "x"; }, "padding (object) is not supported"},
    {"Normalizer", [](json& j) { j["normalizer"] = of_type("NFKC"); },
     "normalizer (NFKC) is not supported; use"},
    {"NormalizerInSequence",
     [](json& j) {
       j["normalizer"] = {{"type", "Sequence"}, {"normalizers", {of_type("NFC"), of_type("Lowercase")}}};
     },
     "normalizer.normalizers[1] (Lowercase) is not supported"},
    {"BadSequence", [](json& j) { j["normalizer"] = of_type("Sequence"); },
     "normalizer (Sequence) is not supported"},
    {"PreTokenizer", [](json& j) { j["pre_tokenizer"] = of_type("Whitespace"); },
     "pre_tokenizer (Whitespace) is not supported"},
    {"NoPreTokenizer", [](json& j) { j.erase("pre_tokenizer"); }, "pre_tokenizer (null) is not supported"},
    {"PrefixSpace", [](json& j) { j["pre_tokenizer"]["add_prefix_space"] = 1; },
     "pre_tokenizer.add_prefix_space (1) is not true or false"},
    {"NoRegex", [](json& j) { j["pre_tokenizer"]["use_regex"] = false; },
     "pre_tokenizer.use_regex (false) is not supported"},
    {"PostProcessor", [](json& j) { j["post_processor"] = of_type("BertProcessing"); },
     "post_processor (BertProcessing) is not supported"},
    {"AddingTokens",
     [](json& j) {
       j["post_processor"] = of_type("TemplateProcessing");
       j["post_processor"]["single"] = {{{"SpecialToken", {{"id", "x"}}}}, {{"Sequence", {{"id", "A"}}}}};
     },
     "post_processor.single adds tokens"},
    {"Decoder", [](json& j) { j["decoder"] = nullptr; }, "decoder (null) is not supported"},
};

const std::vector<Refusal> models = {
    {"NoModel", [](json& j) { j.erase("model"); }, "model is not an object"},
    {"ModelType", [](json& j) { j["model"]["type"] = "Unigram"; }, "model (Unigram) is not supported"},
    {"Dropout", [](json& j) { j["model"]["dropout"] = 0.1; }, "model.dropout (0.1) is not supported"},
    {"Prefix", [](json& j) { j["model"]["continuing_subword_prefix"] = "##"; },
     "model.continuing_subword_prefix (\"##\") is not supported"},
    {"Suffix", [](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; },
     "model.end_of_word_suffix (\"</w>\") is not supported"},
    {"NoVocab", [](json& j) { j["model"].erase("vocab"); }, "model.vocab is not an object"},
    {"IdTwice", [](json& j) { j["model"]["vocab"]["a"] = j["model"]["vocab"]["b"]; },
     "model.vocab gives b the id"},
    {"IdTooLarge", [](json& j) { j["model"]["vocab"]["a"] = 2000; },
     "model.vocab gives a the id 2000; ids must be 0 to 1999, each once"},
    {"NegativeId", [](json& j) { j["model"]["vocab"]["a"] = -1; }, "model.vocab gives a the id -1"},
    {"RealId", [](json& j) { j["model"]["vocab"]["a"] = 1.0; }, "model.vocab gives a the id 1.0"},
    {"NoTokenForAByte",
     [](json& j) {
       j["model"]["vocab"]["new"] = j["model"]["vocab"]["a"];
       j["model"]["vocab"].erase("a");
     },
     "model.vocab lacks a token for byte 97, a"},
    {"NoMerges", [](json& j) { j["model"].erase("merges"); }, "model.merges (null) is not an array"},
    {"MergeOfOne", [](json& j) { j["model"]["merges"][3] = "ab"; }, "model.merges[3] is not two tokens"},
    {"MergeOfThree", [](json& j) { j["model"]["merges"][3] = "a b c"; }, "model.merges[3] is not two tokens"},
    {"ArrayOfThree",
     [](json& j) {
       j["model"]["merges"][3] = {"a", "b", "c"};
     },
     "model.merges[3] (array) is not a string"},
    {"MergeOfNumbers",
     [](json& j) {
       j["model"]["merges"][3] = {1, 2};
     },
     "model.merges[3][0] (1) is not a string"},
    {"MergeOfUnknown", [](json& j) { j["model"]["merges"][3] = "a xyz"; },
     "model.merges[3] needs xyz, which is not in model.vocab"},
    {"MergeToUnknown", [](json& j) { j["model"]["merges"][3] = "! ?"; },
     "model.merges[3] needs !?, which is not in model.vocab"},
};

const std::vector<Refusal> added_tokens = {
    {"NotAnArray", [](json& j) { j["added_tokens"] = json::object(); },
     "added_tokens (object) is not an array"},
    {"NotObjects", [](json& j) { j["added_tokens"][1] = "x"; },
     "added_tokens[1].content (null) is not a string"},
    {"Empty", [](json& j) { j["added_tokens"][1]["content"] = ""; }, "added_tokens[1].content is empty"},
    {"NoFlag", [](json& j) { j["added_tokens"][1].erase("lstrip"); },
     "added_tokens[1].lstrip (null) is not true or false"},
    {"Twice", [](json& j) { j["added_tokens"][2]["content"] = "<|padding|>"; },
     "added_tokens[2].content is there twice"},
    {"OtherId", [](json& j) { j["added_tokens"][2]["id"] = 5; },
     "added_tokens[2].id is 5, but the token's id is 2000"},
};

std::string name_of(const testing::TestParamInfo<Refusal>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Stage, TokenizerJson, testing::ValuesIn(stages), name_of);
INSTANTIATE_TEST_SUITE_P(Model, TokenizerJson, testing::ValuesIn(models), name_of);
INSTANTIATE_TEST_SUITE_P(AddedTokens, TokenizerJson, testing::ValuesIn(added_tokens), name_of);

TEST(TokenizerJson, AcceptsWhatChangesNoId) {
  json root = fixture_json();
  const auto ids = parse_tokenizer_json(root.dump(), "F")->encode("It\u2019s 3e\u0301  a");
  root["post_processor"] = nullptr;
  root["normalizer"] = {{"type", "Sequence"}, {"normalizers", {of_type("NFC")}}};
  root["pre_tokenizer"].erase("use_regex");
  root["model"]["dropout"] = 0.0;
  root["model"]["end_of_word_suffix"] = "";
  root["model"]["unk_token"] = "a";  // no byte is unknown
  EXPECT_EQ(parse_tokenizer_json(root.dump(), "F")->encode("It\u2019s 3e\u0301  a"), ids);
}

TEST(TokenizerJson, BytesThatNoTextHasNeedNoToken) {
  const TemporaryFolder folder;
  make_tokenizer("bytes")->write_files(folder.path());
  json root = json::parse(read_text_file(folder / "tokenizer.json"));
  json& vocab = root["model"]["vocab"];
  for (const char* symbol : {"\u00f5", "\u00f6", "\u00f7", "\u00f8", "\u00f9", "\u00fa", "\u00fb", "\u00fc",
                             "\u00fd", "\u00fe", "\u00ff", "\u00c0", "\u00c1"})
    vocab.erase(symbol);
  std::int32_t next = 0;
  for (auto& [token, id] : vocab.items()) id = next++;
  root["pre_tokenizer"]["use_regex"] = true;
  const auto tokenizer = parse_tokenizer_json(root.dump(), "F");
  EXPECT_EQ(tokenizer->vocab_size(), 243);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("a\xf5\U0010ffff")), "a\ufffd\U0010ffff");
}

TEST(TokenizerJson, LoneSurrogatesAreNoText) {
  expect_error(ExitCode::data, "F: not JSON: ", [] { parse_tokenizer_json(R"({"model": "\ud800"})", "F"); });
  expect_error(ExitCode::data, "F: not JSON: ", [] { parse_tokenizer_json(R"({"model": "\udc00x"})", "F"); });
}

TEST(TokenizerJson, DeepNestingIsNoDanger) {
  const std::string deep = std::string(1000000, '[') + std::string(1000000, ']');
  expect_error(ExitCode::data, "F: not a JSON object", [&] { parse_tokenizer_json(deep, "F"); });
}

}  // namespace
}  // namespace flasheva
