// How a line of JSON becomes tokens, and every way in which one can be wrong.
#include "src/evaluation/question_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/core/file.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Tokens = std::vector<std::int32_t>;

constexpr std::int32_t eos = 300, joined_space = 128;

// Bytes, but a space and the letter behind it are one token, as in byte-level BPE.
class JoiningTokenizer : public Tokenizer {
 public:
  Tokens encode(std::string_view text) const override {
    Tokens tokens;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const bool joins = text[i] == ' ' && i + 1 < text.size() && text[i + 1] != ' ';
      if (joins) ++i;
      tokens.push_back(static_cast<unsigned char>(text[i]) + (joins ? joined_space : 0));
    }
    return tokens;
  }
  std::size_t piece(std::string_view text, std::size_t) const override { return text.size(); }
  std::string decode(const Tokens&) const override { return {}; }
  std::int64_t vocab_size() const override { return 301; }
  std::optional<std::int32_t> eos_token_id() const override { return eos; }
  std::int64_t bytes_of(std::int32_t) const override { return 1; }
  std::string name() const override { return "joining"; }
  void write_files(const std::filesystem::path&) const override {}
};

class QuestionFile : public testing::Test {
 protected:
  std::vector<Question> read(const std::string& lines) {
    write_file_atomically(path, lines);
    return read_questions(path, encoding);
  }
  void expect_refused(const std::string& lines, const std::string& part) {
    expect_error(ExitCode::data, part, [&] { read(lines); });
  }

  TemporaryFolder folder;
  std::filesystem::path path = folder / "q.jsonl";
  JoiningTokenizer tokenizer;
  QuestionEncoding encoding{&tokenizer, eos, 301, 8};
};

TEST_F(QuestionFile, ReadsChoicesWithTheirFields) {
  const auto questions = read(
      "{\"context\": \"ab\", \"choices\": [\" c\", \"de\"], \"answer\": 1, \"group\": \"g\", \"distance\": "
      "7, "
      "\"depth\": 0.5}\n\n  \n{\"context\": \"b\", \"choices\": [\"x\"], \"answer\": 0}");
  ASSERT_EQ(questions.size(), 2u);
  EXPECT_THAT(questions[0].context, ElementsAre('a', 'b'));
  EXPECT_THAT(questions[0].choices[0].tokens, ElementsAre('c' + joined_space));
  EXPECT_THAT(questions[0].choices[1].tokens, ElementsAre('d', 'e'));
  EXPECT_EQ(questions[0].choices[0].length, 2);
  EXPECT_EQ(questions[0].answer, 1);
  EXPECT_EQ(questions[0].group, "g");
  EXPECT_EQ(questions[0].distance, 7);
  EXPECT_EQ(questions[1].line, 4);
  EXPECT_EQ(questions[1].group, "");
  EXPECT_EQ(questions[1].distance, std::nullopt);
}

// Encoded apart, the space would be a token of its own.
TEST_F(QuestionFile, WhiteSpaceAtTheEndOfTheContextMovesToTheContinuation) {
  const Question question = read("{\"context\": \"ab \", \"continuation\": \"cd\"}")[0];
  EXPECT_THAT(question.context, ElementsAre('a', 'b'));
  EXPECT_THAT(question.choices[0].tokens, ElementsAre('c' + joined_space, 'd'));
  EXPECT_EQ(question.choices[0].length, 2);
  EXPECT_EQ(question.answer, std::nullopt);
}

TEST_F(QuestionFile, WhiteSpaceIsWhatPythonStrips) {
  for (const char* space : {"\\t", "\\n", "\\u000b", "\\r", "\\u001c", "\\u001f", "\\u0085", "\\u00a0",
                            "\\u2003", "\\u2028", "\\u202f", "\\u3000", " \\n "})
    EXPECT_THAT(read(std::string("{\"context\": \"a") + space + "\", \"continuation\": \"b\"}")[0].context,
                ElementsAre('a'))
        << space;
  for (const char* letter : {"\\u200b", "\\u001b", "\\u00e9"})  // é ends in a byte that ends a space, too
    EXPECT_GT(
        read(std::string("{\"context\": \"a") + letter + "\", \"continuation\": \"b\"}")[0].context.size(),
        1u)
        << letter;
}

TEST_F(QuestionFile, ADelimiterStandsBeforeChoicesAndDoesNotCountInTheirLength) {
  const Question question =
      read("{\"context\": \"a\", \"choices\": [\"b\", \"cé\"], \"answer\": 0, \"delimiter\": \" \"}")[0];
  EXPECT_THAT(question.choices[0].tokens, ElementsAre('b' + joined_space));
  EXPECT_EQ(question.choices[0].length, 1);
  EXPECT_EQ(question.choices[1].length, 2);  // characters, not bytes
}

TEST_F(QuestionFile, AnEmptyContextIsThePrefixToken) {
  for (const char* context : {"\"context\": \"\"", "\"context_tokens\": []"}) {
    const std::string key = std::string(context).find("tokens") == std::string::npos
                                ? "continuation\": \"bc\""
                                : "continuation_tokens\": [98, 99]";
    const Question question = read(std::string("{") + context + ", \"" + key + "}")[0];
    EXPECT_THAT(question.context, ElementsAre(eos));
    EXPECT_THAT(question.choices[0].tokens, ElementsAre('b', 'c'));
  }
  const Question blank = read("{\"context\": \" \", \"continuation\": \"b\"}")[0];
  EXPECT_THAT(blank.context, ElementsAre(eos));
  EXPECT_THAT(blank.choices[0].tokens, ElementsAre('b' + joined_space));
}

TEST_F(QuestionFile, AContinuationThatBeginsWithThePrefixTokenGivesItOnce) {
  const Question question = read("{\"context_tokens\": [], \"continuation_tokens\": [300, 5]}")[0];
  EXPECT_THAT(question.context, ElementsAre(eos));
  EXPECT_THAT(question.choices[0].tokens, ElementsAre(5));
  expect_refused("{\"context_tokens\": [], \"continuation_tokens\": [300]}",
                 "q.jsonl:1: continuation_tokens has no token of its own to score");
}

TEST_F(QuestionFile, TokensNeedNoTokenizer) {
  encoding.tokenizer = nullptr;
  const Question question =
      read("{\"context_tokens\": [1, 2], \"choices_tokens\": [[3], [4, 5]], \"answer\": 0}")[0];
  EXPECT_THAT(question.context, ElementsAre(1, 2));
  EXPECT_THAT(question.choices[1].tokens, ElementsAre(4, 5));
  EXPECT_EQ(question.choices[1].length, 2);
  expect_refused("{\"context\": \"a\", \"continuation_tokens\": [3]}",
                 "q.jsonl:1: context is a text, and the model has no tokenizer.json; give context_tokens");
}

TEST_F(QuestionFile, BrokenLinesAreNamed) {
  const std::string good = "{\"context\": \"a\", \"continuation\": \"b\"}\n";
  expect_refused(good + "{\"context\": ", "q.jsonl:2: not JSON");
  expect_refused(good + "\n[1]", "q.jsonl:3: not a JSON object");
  expect_refused("{\"context\": \"\xff\", \"continuation\": \"b\"}", "q.jsonl:1: not JSON");
  expect_refused("", "q.jsonl: no question in it");
  expect_refused(good + "{\"context\": \"a\", \"choices\": [\"b\"], \"answer\": 0}",
                 "q.jsonl:2: choices and a continuation in one file (see line 1)");
  expect_error(ExitCode::data, "cannot read: No such file", [&] { read_questions(folder / "no", encoding); });
}

TEST_F(QuestionFile, MissingAndDoubleKeysAreRefused) {
  expect_refused("{\"continuation\": \"b\"}", "needs either `context` or `context_tokens`");
  expect_refused("{\"context\": \"a\", \"context_tokens\": [1], \"continuation\": \"b\"}",
                 "needs either `context` or `context_tokens`");
  for (const char* rest : {"", ", \"choices\": [\"b\"], \"continuation\": \"c\""})
    expect_refused(std::string("{\"context\": \"a\"") + rest + "}",
                   "needs either `choices` and `answer`, or `continuation`");
  expect_refused("{\"context\": \"a\", \"continuation\": \"b\", \"continuation_tokens\": [1]}",
                 "needs either `continuation` or `continuation_tokens`");
  expect_refused("{\"context\": \"a\", \"choices\": [\"b\"], \"choices_tokens\": [[1]], \"answer\": 0}",
                 "needs either `choices` or `choices_tokens`");
}

TEST_F(QuestionFile, ImpossibleValuesAreRefused) {
  const auto with = [](const std::string& rest) { return "{\"context\": \"a\", " + rest + "}"; };
  const auto ids = [](const std::string& rest) { return "{\"context_tokens\": [1], " + rest + "}"; };
  expect_refused("{\"context\": 3, \"continuation\": \"b\"}", "context is not a text");
  expect_refused(with("\"choices\": [], \"answer\": 0"), "choices is empty or not a list");
  expect_refused(with("\"choices\": \"b\", \"answer\": 0"), "choices is empty or not a list");
  expect_refused(with("\"choices\": [\"b\", \"\"], \"answer\": 0"), "choices 1 is empty");
  expect_refused(with("\"choices\": [\"b\", 4], \"answer\": 0"), "choices 1 is not a text");
  expect_refused(with("\"choices\": [\"b\"]"), "answer must be an integer");
  for (const char* answer : {"-1", "\"0\"", "0.5", "18446744073709551615", "1e30"})
    expect_refused(with(std::string("\"choices\": [\"b\"], \"answer\": ") + answer),
                   "answer must be an integer");
  expect_refused(with("\"choices\": [\"b\", \"c\"], \"answer\": 2"), "answer 2 names none of the 2 choices");
  expect_refused(with("\"continuation\": \"\""), "continuation is empty");
  expect_refused(with("\"continuation\": \"abcdefghi\""), "continuation has 9 tokens, and the model sees 8");
  expect_refused(with("\"continuation\": \"b\", \"group\": 3"), "group is not a text");
  expect_refused(with("\"continuation\": \"b\", \"distance\": -3"), "distance must be an integer");
  expect_refused(with("\"continuation_tokens\": [1]"), "must all be texts, or all token ids");
  expect_refused(ids("\"continuation_tokens\": []"), "has no token of its own");
  expect_refused(ids("\"continuation_tokens\": 4"), "continuation_tokens is not a list of token ids");
  for (const char* id : {"301", "-1", "1.5", "\"1\"", "18446744073709551615"})
    expect_refused(ids(std::string("\"continuation_tokens\": [") + id + "]"),
                   "not a token id below the model's");
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  expect_refused(ids("\"continuation_tokens\": [" + deep + "]"), "has array, not a token id");
  encoding.vocab_size = 98;
  expect_refused(with("\"continuation\": \"b\""), "the tokenizer gives token 98, not below the model's");
  encoding.prefix_token.reset();
  expect_refused("{\"context\": \"\", \"continuation\": \"a\"}",
                 "neither a bos_token_id nor an eos_token_id");
}

}  // namespace
}  // namespace flasheva
