// What lm-evaluation-harness 0.4.13 reports (lm_eval/api/task.py, `process_results`; lm_eval/api/metrics.py),
// over all questions, by group and by distance.
//
//     choices        acc: the choice of the largest log-likelihood is the answer
//                    acc_norm: that of the largest log-likelihood / length in characters
//                    of both, the first of equals
//     continuation   acc: every token of it is the most likely one
//                    perplexity: exp(- mean log-likelihood of a continuation)
//
// Standard error of a mean of n values: their sample deviation (divisor n - 1) / sqrt(n); of perplexity:
// perplexity x that of the mean log-likelihood, which is what the harness's bootstrap estimates, to first
// order. Null where n is 1.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "src/evaluation/question_file.h"
#include "src/evaluation/scoring.h"

namespace flasheva {

// Places of the likeliest choice, and of the likeliest by its length.
struct Prediction {
  std::int64_t choice = 0, choice_norm = 0;
};
Prediction predict(const Question& question, const std::vector<ContinuationScore>& scores);

// questions, acc, acc_stderr, and acc_norm, acc_norm_stderr or perplexity, perplexity_stderr. Where any
// question has a distance, `distances`: the same of each bucket from 2^k to 2^(k+1) - 1 (`from`, `to`). Where
// any has a group, `groups`: all of this of each group (`group`), in the file's order.
nlohmann::ordered_json accuracy_of(const std::vector<Question>& questions, const Scores& scores);

}  // namespace flasheva
