// flasheva evaluate --multiple-choice, against what `flasheva logits` says of the same tokens.
#include <gtest/gtest.h>

#include "tests/commands/workspace.h"

namespace flasheva {
namespace {

using testing::HasSubstr;

class EvaluateQuestions : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    space = std::make_unique<Workspace>();
    expect_done({"train", space->at("scratch.yaml"), "phases.0.steps=4"});
    expect_done({"convert", space->at("pretrained/model"), model(), "--attention", "eva", "--window", "8",
                 "--chunk", "4"});
  }
  static void TearDownTestSuite() { space.reset(); }
  static std::string model() { return space->at("eva"); }

  // Figures and the lines of --details.
  static nlohmann::json evaluate(const std::string& lines, std::vector<nlohmann::json>& details) {
    write_text(space->at("q.jsonl"), lines);
    out = expect_done({"evaluate", model(), "--multiple-choice", space->at("q.jsonl"), "--sequence-length",
                       "40", "--json", space->at("f.json"), "--details", space->at("d.jsonl")});
    std::ifstream file(space->at("d.jsonl"));
    details.clear();
    for (std::string line; std::getline(file, line);) details.push_back(nlohmann::json::parse(line));
    return read_json(space->at("f.json"));
  }

  // Sum of log p over the last `count` bytes of the text, of which the model sees 40 at once.
  static double log_likelihood(const std::string& text, std::size_t count) {
    std::vector<std::int32_t> tokens;
    for (const char c : text.substr(text.size() - std::min<std::size_t>(text.size(), 41)))
      tokens.push_back(static_cast<unsigned char>(c));
    const std::size_t T = tokens.size() - 1, V = 256;
    const std::vector<float> logits = space->logits(model(), {tokens.begin(), tokens.end() - 1});
    double total = 0;
    for (std::size_t t = T - count; t < T; ++t) {
      double sum = 0;
      for (std::size_t v = 0; v < V; ++v) sum += std::exp(static_cast<double>(logits[t * V + v]));
      total += static_cast<double>(logits[t * V + static_cast<std::size_t>(tokens[t + 1])]) - std::log(sum);
    }
    return total;
  }

  static std::unique_ptr<Workspace> space;
  static std::string out;
};

std::unique_ptr<Workspace> EvaluateQuestions::space;
std::string EvaluateQuestions::out;

TEST_F(EvaluateQuestions, LogLikelihoodsAreThoseOfTheLogits) {
  const std::string long_context = some_text(100, 9);
  std::vector<nlohmann::json> details;
  const nlohmann::json figures = evaluate(
      fmt::format(R"({{"context": "abcabc  ", "choices": ["ab", "x y z", "é"], "answer": 1, "group": "short"}}
{{"context": "{}", "choices": ["dog", "cat"], "answer": 0, "group": "long", "distance": 100}}
)",
                  long_context),
      details);
  ASSERT_EQ(details.size(), 2u);
  const std::vector<std::string> choices = {"  ab", "  x y z", "  é"};
  for (std::size_t i = 0; i < 3; ++i) {
    const double expected = log_likelihood("abcabc" + choices[i], choices[i].size());
    EXPECT_NEAR(details[0]["log_likelihoods"][i], expected, -1e-6 * expected) << choices[i];
  }
  const double cut = log_likelihood(long_context + "cat", 3);
  EXPECT_NEAR(details[1]["log_likelihoods"][1], cut, -1e-6 * cut);
  EXPECT_EQ(details[1]["line"], 2);
  EXPECT_EQ(figures["questions"], 2);
  EXPECT_EQ(figures["truncated"], 2);  // both choices of the long context
  EXPECT_EQ(figures["groups"][1]["distances"][0]["to"], 127);
  EXPECT_THAT(out, HasSubstr("64-127"));
  EXPECT_THAT(out, HasSubstr("short"));
}

// Among 200 others of all lengths, and alone.
TEST_F(EvaluateQuestions, WhatElseIsInTheFileChangesNothing) {
  std::string lines;
  for (unsigned i = 0; i < 200; ++i)
    lines += fmt::format(R"({{"context": "{}", "continuation": "{}"}})", some_text(1 + i % 60, i),
                         some_text(1 + i % 5, i + 1)) +
             "\n";
  std::vector<nlohmann::json> together, alone;
  evaluate(lines, together);
  ASSERT_EQ(together.size(), 200u);
  for (std::size_t i = 0; i < 200; i += 39) {
    std::size_t begin = 0;
    for (std::size_t line = 0; line < i; ++line) begin = lines.find('\n', begin) + 1;
    evaluate(lines.substr(begin, lines.find('\n', begin) - begin), alone);
    const double expected = alone[0]["log_likelihood"];
    EXPECT_NEAR(together[i]["log_likelihood"], expected, -1e-6 * expected) << i;
    EXPECT_EQ(together[i]["greedy"], alone[0]["greedy"]) << i;
  }
}

TEST_F(EvaluateQuestions, BadInputIsNamed) {
  const std::string file = space->at("bad.jsonl");
  write_text(file, "{\"context\": \"a\", \"choices\": [\"b\"], \"answer\": 0}\n{\"context\": \"a\", ");
  expect_failure({"evaluate", model(), "--multiple-choice", file}, ExitCode::data, "bad.jsonl:2: not JSON");
  write_text(file, "{\"context\": \"\", \"continuation\": \"b\"}\n");
  expect_failure({"evaluate", model(), "--multiple-choice", file}, ExitCode::data,
                 "bad.jsonl:1: the context is empty, and the model has neither a bos_token_id nor an eos");
  expect_failure({"evaluate", model(), "--multiple-choice", space->at("no.jsonl")}, ExitCode::data,
                 "no.jsonl: cannot read");
  expect_failure({"evaluate", model(), "--multiple-choice", file, "--data", file}, ExitCode::usage,
                 "excludes");
  expect_failure({"evaluate", model(), "--data", file, "--details", file}, ExitCode::usage,
                 "--details requires --multiple-choice");
}

}  // namespace
}  // namespace flasheva
