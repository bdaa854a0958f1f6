#include "src/evaluation/accuracy.h"

#include <gtest/gtest.h>

#include <cmath>

namespace flasheva {
namespace {

Question choices(std::vector<std::int64_t> lengths, std::int64_t answer, const std::string& group = "",
                 std::optional<std::int64_t> distance = {}) {
  Question question;
  for (const std::int64_t length : lengths) question.choices.push_back({{1}, length});
  question.answer = answer;
  question.group = group;
  question.distance = distance;
  return question;
}

// -4 is the largest; by length -6 / 6 is.
TEST(Accuracy, TakesTheLikeliestChoiceAndTheLikeliestByLength) {
  const Prediction prediction = predict(choices({2, 6, 1}, 0), {{-4, false}, {-6, false}, {-5, false}});
  EXPECT_EQ(prediction.choice, 0);
  EXPECT_EQ(prediction.choice_norm, 1);
}

TEST(Accuracy, TakesTheFirstOfEquals) {
  const Prediction prediction = predict(choices({1, 2, 1}, 0), {{-4, false}, {-2, false}, {-2, false}});
  EXPECT_EQ(prediction.choice, 1);
  EXPECT_EQ(prediction.choice_norm, 1);  // -1, before -2
  EXPECT_EQ(predict(choices({1, 1}, 0), {{-3, false}, {-3, false}}).choice, 0);
}

// Right, wrong, right: mean 2/3, sample variance 1/3.
TEST(Accuracy, GivesTheHarnesssStandardError) {
  const std::vector<Question> questions = {choices({1, 1}, 0), choices({1, 1}, 1), choices({1, 1}, 0)};
  const std::vector<ContinuationScore> first = {{-1, false}, {-2, false}};
  const auto figures = accuracy_of(questions, {first, first, first});
  EXPECT_EQ(figures["questions"], 3);
  EXPECT_DOUBLE_EQ(figures["acc"], 2.0 / 3);
  EXPECT_DOUBLE_EQ(figures["acc_stderr"], std::sqrt(1.0 / 3) / std::sqrt(3.0));
  EXPECT_DOUBLE_EQ(figures["acc_norm"], 2.0 / 3);
  EXPECT_FALSE(figures.contains("groups") || figures.contains("distances") || figures.contains("perplexity"));
  EXPECT_TRUE(accuracy_of({questions[0]}, {first})["acc_stderr"].is_null());
}

TEST(Accuracy, OfContinuationsIsTheShareOfGreedyOnes) {
  Question question;
  question.choices = {{{1}, 1}};
  const auto figures = accuracy_of({question, question}, {{{-1, true}}, {{-3, false}}});
  EXPECT_DOUBLE_EQ(figures["acc"], 0.5);
  EXPECT_DOUBLE_EQ(figures["perplexity"], std::exp(2.0));
  EXPECT_DOUBLE_EQ(figures["perplexity_stderr"], std::exp(2.0));  // deviation sqrt(2), over sqrt(2) values
  EXPECT_FALSE(figures.contains("acc_norm"));
}

TEST(Accuracy, IsSortedByGroupAndDistance) {
  const std::vector<Question> questions = {choices({1, 1}, 0, "b", 31), choices({1, 1}, 1, "b", 32),
                                           choices({1, 1}, 0, "a", 0), choices({1, 1}, 0, "b", 16),
                                           choices({1, 1}, 0)};
  const Scores scores(5, {{-1, false}, {-2, false}});
  const auto figures = accuracy_of(questions, scores);
  EXPECT_DOUBLE_EQ(figures["acc"], 0.8);
  ASSERT_EQ(figures["groups"].size(), 2u);
  const auto& b = figures["groups"][0];
  EXPECT_EQ(b["group"], "b");
  EXPECT_EQ(b["questions"], 3);
  ASSERT_EQ(b["distances"].size(), 2u);
  EXPECT_EQ(b["distances"][0]["from"], 16);
  EXPECT_EQ(b["distances"][0]["to"], 31);
  EXPECT_EQ(b["distances"][0]["questions"], 2);
  EXPECT_EQ(b["distances"][0]["acc"], 1.0);
  EXPECT_EQ(b["distances"][1]["from"], 32);
  EXPECT_EQ(b["distances"][1]["to"], 63);
  EXPECT_EQ(b["distances"][1]["acc"], 0.0);
  EXPECT_EQ(figures["groups"][1]["distances"][0]["to"], 0);
  EXPECT_EQ(figures["distances"].size(), 3u);
}

}  // namespace
}  // namespace flasheva
