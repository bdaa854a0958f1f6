// flasheva generate, on models that the program itself trains.
#include <gtest/gtest.h>

#include <set>

#include "tests/commands/workspace.h"

namespace flasheva {
namespace {

using testing::HasSubstr;

class Generate : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    space = std::make_unique<Workspace>();
    expect_done({"train", space->at("scratch.yaml")});
    expect_done({"train", space->at("tune.yaml")});
  }
  static void TearDownTestSuite() { space.reset(); }

  static std::string pretrained() { return space->at("pretrained/model"); }
  static std::string tuned() { return space->at("tuned/model"); }

  // Continues the prompts of a file with these lines; the lines that come out.
  static std::vector<nlohmann::json> continue_lines(const std::string& lines, const Arguments& more) {
    write_text(space->at("prompts.jsonl"), lines);
    Arguments arguments = {
        "generate", tuned(), "--input", space->at("prompts.jsonl"), "--output", space->at("out.jsonl")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    EXPECT_EQ(expect_done(arguments), "");
    std::vector<nlohmann::json> out;
    std::ifstream file(space->at("out.jsonl"));
    for (std::string line; std::getline(file, line);) out.push_back(nlohmann::json::parse(line));
    return out;
  }

  static void expect_refused(const std::string& lines, const std::string& part, const Arguments& more = {}) {
    write_text(space->at("prompts.jsonl"), lines);
    Arguments arguments = {"generate", tuned(), "--input", space->at("prompts.jsonl")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    expect_failure(arguments, ExitCode::data, part);
  }

  static std::unique_ptr<Workspace> space;
};

std::unique_ptr<Workspace> Generate::space;

TEST_F(Generate, GreedilyFollowsTheLargestLogit) {
  const Arguments greedy = {"generate", tuned(), "--prompt", "abc", "--greedy", "--max-new-tokens", "20"};
  const std::string text = expect_done(greedy);
  EXPECT_EQ(expect_done(greedy), text);
  ASSERT_EQ(text.substr(0, 3), "abc");
  ASSERT_EQ(text.size(), 3u + 20 + 1);
  std::vector<std::int32_t> tokens;
  for (const char c : text.substr(0, 3 + 20)) tokens.push_back(static_cast<unsigned char>(c));
  const std::vector<float> logits = space->logits(tuned(), tokens);
  for (std::size_t t = 2; t + 1 < tokens.size(); ++t) {
    const auto row = logits.begin() + static_cast<std::ptrdiff_t>(256 * t);
    EXPECT_EQ(std::max_element(row, row + 256) - row, tokens[t + 1]) << t;
  }
}

TEST_F(Generate, SamplesBySeedAndStops) {
  const auto generate = [&](const Arguments& more) {
    Arguments arguments = {"generate", pretrained(), "--prompt", "the ", "--max-new-tokens", "30"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return expect_done(arguments);
  };
  const std::string text = generate({"--seed", "1"});
  EXPECT_EQ(generate({"--seed", "1"}), text);
  EXPECT_NE(generate({"--seed", "2"}), text);
  EXPECT_EQ(generate({"--seed", "2", "--top-k", "1"}), generate({"--greedy"}));
  EXPECT_EQ(generate({"--seed", "2", "--top-p", "0.000001"}), generate({"--greedy"}));
  const std::string stop = generate({"--greedy"}).substr(9, 2);
  EXPECT_EQ(generate({"--greedy", "--stop", stop}),
            generate({"--greedy"}).substr(0, generate({"--greedy"}).find(stop, 4)) + "\n");
}

const std::string ragged = R"({"prompt": "abc", "id": 7}
{"tokens": [104, 101, 108, 108, 111, 32, 116, 104, 101, 114, 101, 32, 97, 98]}

{"prompt": "t"}
{"prompt": "a longer prompt than the others, over many windows of the model "}
)";

TEST_F(Generate, LinesComeInOrderWithTheirKeys) {
  const auto out = continue_lines(ragged, {"--max-new-tokens", "12", "--batch", "3", "--seed", "4"});
  ASSERT_EQ(out.size(), 4u);
  EXPECT_EQ(out[0]["id"], 7);
  EXPECT_EQ(out[0]["prompt"], "abc");
  EXPECT_EQ(out[1]["tokens"].size(), 14u);
  EXPECT_EQ(out[2]["prompt"], "t");
  for (const nlohmann::json& line : out) {
    EXPECT_EQ(line["new_tokens"].size(), 12u);
    EXPECT_EQ(line["finish"], "length");
    EXPECT_TRUE(line["text"].is_string());
  }
}

TEST_F(Generate, TheBatchChangesNoText) {
  for (const Arguments& how : {Arguments{"--greedy"}, Arguments{"--seed", "3", "--top-k", "50"}}) {
    Arguments one = how, four = how;
    one.insert(one.end(), {"--max-new-tokens", "40", "--batch", "1"});
    four.insert(four.end(), {"--max-new-tokens", "40", "--batch", "4"});
    EXPECT_EQ(continue_lines(ragged, one), continue_lines(ragged, four));
  }
}

TEST_F(Generate, RepetitionPenaltyAvoidsWhatOccurred) {
  const auto longest_run = [&](const Arguments& more) {
    Arguments arguments = {"generate", tuned(), "--prompt", "a", "--greedy", "--max-new-tokens", "60"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const std::string text = expect_done(arguments);
    return std::set<char>(text.begin(), text.end()).size();
  };
  EXPECT_GT(longest_run({"--repetition-penalty", "1e6"}), longest_run({}));
  EXPECT_EQ(longest_run({"--repetition-penalty", "1"}), longest_run({}));
}

TEST_F(Generate, SaysSpeedAndCache) {
  const Result result =
      flasheva({"generate", tuned(), "--prompt", "abc", "--max-new-tokens", "5", "--max-length", "100"});
  EXPECT_THAT(result.err, HasSubstr("prompts: 3 tokens"));
  EXPECT_THAT(result.err, HasSubstr("new: 4 tokens"));
  EXPECT_THAT(result.err, HasSubstr("cache "));
}

TEST_F(Generate, EndsAtMaxLength) {
  const auto out = continue_lines(R"({"prompt": "abcdef"})", {"--max-length", "10"});
  EXPECT_EQ(out[0]["new_tokens"].size(), 4u);
  EXPECT_EQ(out[0]["finish"], "length");
}

TEST_F(Generate, RefusesBrokenPrompts) {
  expect_refused("{\"prompt\": \"a\"}\n{\"prompt\": \n", "prompts.jsonl:2: not JSON");
  expect_refused("[1]", "prompts.jsonl:1: expected {\"prompt\": text} or {\"tokens\": [ids]}");
  expect_refused(R"({"text": "a"})", "prompts.jsonl:1: expected");
  expect_refused(R"({"prompt": "a", "tokens": [1]})", "prompts.jsonl:1: expected");
  expect_refused(R"({"prompt": 3})", "prompts.jsonl:1: `prompt` must be a string");
  expect_refused(R"({"prompt": ""})", "prompts.jsonl:1: the prompt is empty");
  expect_refused(R"({"tokens": []})", "prompts.jsonl:1: the prompt is empty");
  expect_refused(R"({"tokens": "a"})", "prompts.jsonl:1: `tokens` must be an array of ids");
  expect_refused(R"({"tokens": [1, 256]})",
                 "prompts.jsonl:1: `tokens` holds 256; an id is an integer from 0 to 255");
  expect_refused(R"({"tokens": [-1]})", "holds -1");
  expect_refused(R"({"tokens": [1.5]})", "holds 1.5");
  expect_refused("\n\n", "holds no prompt");
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  expect_refused("{\"prompt\": \"a\", \"x\": " + deep + "}", "prompts.jsonl:1: nested more than 100 deep");
  expect_refused("{\"prompt\": \"a\"}\n{\"prompt\": \"abcdef\"}\n",
                 "prompts.jsonl:2: 6 tokens leave no room for a new one in 6", {"--max-length", "6"});
}

TEST_F(Generate, RefusesOptionsThatDoNotFit) {
  const ExitCode usage = ExitCode::usage;
  expect_failure({"generate", tuned()}, usage, "--prompt");
  expect_failure({"generate", tuned(), "--prompt", "a", "--input", "x"}, usage, "--");
  expect_failure({"generate", tuned(), "--prompt", "a", "--output", "x"}, usage, "--input");
  expect_failure({"generate", tuned(), "--prompt", "a", "--stop", ""}, usage, "--stop");
  expect_failure({"generate", tuned(), "--prompt", "a", "--repetition-penalty", "0"}, usage,
                 "--repetition-penalty");
  expect_failure({"generate", tuned(), "--prompt", "a", "--batch", "0"}, usage, "--batch");
  expect_failure({"generate", tuned(), "--prompt", "a", "--max-new-tokens", "9223372036854775807"}, usage,
                 "--max-new-tokens");
  for (const char* option : {"--temperature", "--top-p", "--repetition-penalty"})
    expect_failure({"generate", tuned(), "--prompt", "a", option, "nan"}, usage, option);
  expect_failure({"generate", tuned(), "--input", space->at("no.jsonl")}, ExitCode::data, "no.jsonl");
  write_text(space->at("prompts.jsonl"), ragged);
  expect_failure(
      {"generate", tuned(), "--input", space->at("prompts.jsonl"), "--output", "/no/such/folder/x"},
      ExitCode::disk, "/no/such/folder/x");
}

}  // namespace
}  // namespace flasheva
