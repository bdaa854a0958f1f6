// Scores a model on multiple choice and on the recall of continuations.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kernels/ops.h"

namespace flasheva {

struct QuestionOptions {
  std::string model, questions, json, details, precision;
  std::optional<std::int64_t> max_tokens;  // that the model sees at once; its max_position_embeddings
};

// Prints, and writes as JSON where asked, what accuracy_of gives and how many rows were `truncated`; then a
// table by group and distance. `details`, where given: a line of JSON a question with `line`,
// `log_likelihoods` and `greedy` of its choices, `prediction`, `prediction_norm`, or `log_likelihood` and
// `greedy` of its continuation.
void evaluate_questions(const QuestionOptions& options, Ops& ops);

}  // namespace flasheva
