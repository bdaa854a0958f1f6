// Log-likelihoods and greedy matches against float64 sums over the logits of one row at a time.
#include "src/evaluation/scoring.h"

#include <gtest/gtest.h>

#include <random>

#include "src/io/model_folder.h"
#include "tests/support/expect_error.h"
#include "tests/support/fixtures.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

constexpr std::int32_t vocabulary = 40;  // of the models in tests/fixtures
constexpr std::int64_t max_tokens = 50;

std::vector<std::int32_t> random_tokens(std::mt19937_64& generator, int from, int to) {
  std::vector<std::int32_t> tokens(std::uniform_int_distribution<std::size_t>(
      static_cast<std::size_t>(from), static_cast<std::size_t>(to))(generator));
  for (auto& token : tokens)
    token = std::uniform_int_distribution<std::int32_t>(0, vocabulary - 1)(generator);
  return tokens;
}

std::vector<Question> random_questions(int count) {
  std::mt19937_64 generator(3);
  std::vector<Question> questions(static_cast<std::size_t>(count));
  for (Question& question : questions) {
    question.context = random_tokens(generator, 1, 60);
    for (int i = 0; i < 3; ++i) question.choices.push_back({random_tokens(generator, 1, 6), 1});
  }
  return questions;
}

// By the definition: one row, float64.
ContinuationScore reference(InferenceModel& model, const Question& question, const Continuation& choice) {
  std::vector<std::int32_t> whole = question.context;
  whole.insert(whole.end(), choice.tokens.begin(), choice.tokens.end());
  if (std::ssize(whole) > max_tokens + 1) whole.erase(whole.begin(), whole.end() - (max_tokens + 1));
  const std::int64_t T = std::ssize(whole) - 1, rows = std::ssize(choice.tokens);
  TestTensor logits(DType::f32, {rows, vocabulary});
  model.logits(logits, view_of(whole.data(), {T}), {1, T});
  ContinuationScore out{0, true};
  for (std::int64_t row = 0; row < rows; ++row) {
    double sum = 0, largest = -INFINITY;
    std::int32_t likeliest = 0;
    for (std::int32_t v = 0; v < vocabulary; ++v) {
      const double logit = logits.get(row * vocabulary + v);
      sum += std::exp(logit);
      if (logit > largest) likeliest = v;
      largest = std::max(largest, logit);
    }
    const std::int32_t target = choice.tokens[static_cast<std::size_t>(row)];
    out.log_likelihood += logits.get(row * vocabulary + target) - std::log(sum);
    out.greedy = out.greedy && target == likeliest;
  }
  return out;
}

class Scoring : public testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path folder = fixture("models") / GetParam();
  ModelConfig config = read_model_config(folder);
  std::unique_ptr<Ops> ops = make_device_ops();
};

// Rows of 1 to 50 tokens, many in a batch. A float32 logit of a batch of another size differs in its last
// bits: 1e-6 is about 8 of float32's roundings.
TEST_P(Scoring, EqualsTheSumOverEveryRowAlone) {
  std::vector<Question> questions = random_questions(60);
  const ScoringPlan plan = plan_scoring(questions, config, max_tokens);
  InferenceModel model(folder, *ops, Precision::fp32, plan.largest, "");
  EXPECT_GT(plan.largest.sequences, 10);
  // A greedy match, which random tokens hardly are.
  for (std::int32_t token = 0;
       token < vocabulary && !reference(model, questions[0], questions[0].choices[0]).greedy; ++token)
    questions[0].choices[0].tokens = {token};
  const ScoringPlan with_match = plan_scoring(questions, config, max_tokens);
  const auto scores = score(model, questions, with_match);

  int greedy = 0;
  for (std::size_t q = 0; q < questions.size(); ++q)
    for (std::size_t c = 0; c < 3; ++c) {
      const ContinuationScore expected = reference(model, questions[q], questions[q].choices[c]);
      EXPECT_NEAR(scores[q][c].log_likelihood, expected.log_likelihood, -1e-6 * expected.log_likelihood);
      EXPECT_EQ(scores[q][c].greedy, expected.greedy);
      greedy += expected.greedy;
    }
  EXPECT_GE(greedy, 1);
}

INSTANTIATE_TEST_SUITE_P(, Scoring, testing::Values("full", "sliding", "eva-block", "mixed-geometry"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(ScoringPlan, PutsLongRowsFirstAndCountsThoseThatLoseTokens) {
  ModelConfig config = read_model_config(fixture("models/eva-block"));
  std::vector<Question> questions(3);
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}, std::size_t{2}}) {
    questions[i].context.assign(10 * i + 3, 0);
    questions[i].choices = {{{1, 2}, 1}};
  }
  const ScoringPlan plan = plan_scoring(questions, config, 23);
  ASSERT_EQ(plan.rows.size(), 3u);
  EXPECT_EQ(plan.rows[0].question, 2u);
  EXPECT_EQ(plan.rows[0].tokens, 23);  // of 24
  EXPECT_EQ(plan.rows[2].tokens, 4);
  EXPECT_EQ(plan.truncated, 1);
  EXPECT_EQ(plan.largest.tokens, 24);  // whole chunks of 4
  EXPECT_EQ(plan.largest.sequences, 4096 / 24);
}

// One long row must not make batches of short ones small, nor those take more chunks than were planned.
TEST(ScoringPlan, ShortRowsBesideALongOneAreComputedTogether) {
  const auto ops = make_device_ops();
  const auto folder = fixture("models/eva-block");
  std::vector<Question> questions(2000);
  for (Question& question : questions) {
    question.context = {1, 2, 3, 4};
    question.choices = {{{5}, 1}};
  }
  questions[0].context.assign(2047, 7);
  const ScoringPlan plan = plan_scoring(questions, read_model_config(folder), 2048);
  EXPECT_EQ(plan.largest.sequences, 2);
  InferenceModel model(folder, *ops, Precision::fp32, plan.largest, "");
  const auto scores = score(model, questions, plan);
  for (std::size_t i = 2; i < scores.size(); ++i)
    EXPECT_NEAR(scores[i][0].log_likelihood, scores[1][0].log_likelihood,
                -1e-6 * scores[1][0].log_likelihood);
}

TEST(Score, NamesTheLineOfAQuestionWithoutAFiniteLogLikelihood) {
  const TemporaryFolder broken;
  std::filesystem::copy(fixture("models/full"), broken.path(), std::filesystem::copy_options::recursive);
  const SafetensorsReader file(fixture("models/full"));
  NamedTensors tensors(file.tensors().begin(), file.tensors().end());
  std::vector<float> nan;
  for (auto& [name, tensor] : tensors)
    if (name == "embed_out.weight") {
      nan.assign(static_cast<std::size_t>(tensor.size()), NAN);
      tensor.data = std::as_bytes(std::span<const float>(nan));
    }
  write_safetensors(broken / "model.safetensors", tensors);

  const auto ops = make_device_ops();
  std::vector<Question> questions(1);
  questions[0].line = 12;
  questions[0].context = {1};
  questions[0].choices = {{{2}, 1}};
  const ScoringPlan plan = plan_scoring(questions, read_model_config(broken.path()), max_tokens);
  InferenceModel model(broken.path(), *ops, Precision::fp32, plan.largest, "");
  expect_error(ExitCode::numeric, "question of line 12: its log-likelihood is",
               [&] { score(model, questions, plan); });
}

}  // namespace
}  // namespace flasheva
