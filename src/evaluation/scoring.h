// Log-likelihoods of continuations: of each, the sum over its tokens of log p(token | all before it).
//
// A row is a context and one continuation, without its last token; where it is longer than the model sees at
// once, its first tokens are left out (as lm-evaluation-harness does). Rows of similar length are computed
// together, shorter ones filled up behind their end: a causal model sees nothing of that.
#pragma once

#include <cstdint>
#include <vector>

#include "src/evaluation/question_file.h"
#include "src/inference/inference_model.h"

namespace flasheva {

struct ContinuationScore {
  double log_likelihood = 0;  // nats
  bool greedy = false;        // every token had the largest logit, first of equals
};

// Which rows there are, longest first, and the largest batch that a model must be loaded for.
struct ScoringPlan {
  struct Row {
    std::size_t question, choice;
    std::int64_t tokens;
  };
  std::vector<Row> rows;
  Extent largest;
  std::int64_t truncated = 0;  // rows that lost tokens
};

ScoringPlan plan_scoring(const std::vector<Question>& questions, const ModelConfig& config,
                         std::int64_t max_tokens);

using Scores = std::vector<std::vector<ContinuationScore>>;  // of every question's choices

// Error{numeric} where the model gives no finite number.
Scores score(InferenceModel& model, const std::vector<Question>& questions, const ScoringPlan& plan);

}  // namespace flasheva
