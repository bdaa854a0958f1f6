// Questions for a model, one JSON object a line:
//
//     {"context": text, "choices": [text, ...], "answer": index}    which choice is the most likely?
//     {"context": text, "continuation": text}                       is every token of it the most likely one?
//
// `context_tokens`, `choices_tokens` and `continuation_tokens` (ids) may stand for their texts. Optional:
// `group` (text) and `distance` (integer from 0 on), by which results are sorted, and `delimiter` (text),
// which comes before every choice and does not count in its length. Other keys are ignored; all lines are of
// one kind.
//
// Text is encoded as EleutherAI's lm-evaluation-harness 0.4.13 does it (lm_eval/api/model.py, `_encode_pair`
// and `loglikelihood`): white space at the end of the context moves to the continuation, the context and the
// whole are encoded, and the continuation is what of the whole comes after as many tokens as the context has.
// An empty context becomes the model's bos_token_id, or else its eos_token_id; so does one of white space
// alone, which the harness refuses.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "src/io/tokenizer.h"

namespace flasheva {

struct Continuation {
  std::vector<std::int32_t> tokens;  // never empty
  std::int64_t length = 0;           // characters of the text; tokens where ids were given
};

struct Question {
  std::int64_t line = 0;               // in its file, from 1
  std::vector<std::int32_t> context;   // never empty
  std::vector<Continuation> choices;   // one alone where the line has a `continuation`
  std::optional<std::int64_t> answer;  // a place in `choices`; none where the line has a `continuation`
  std::string group;                   // empty: none
  std::optional<std::int64_t> distance;
};

// How a model takes text.
struct QuestionEncoding {
  const Tokenizer* tokenizer = nullptr;      // none: questions must come as ids
  std::optional<std::int32_t> prefix_token;  // what stands for an empty context
  std::int64_t vocab_size = 0;
  std::int64_t max_tokens = 0;  // that a model sees at once: the longest continuation
};

// At least one question. Error{data} naming file and line.
std::vector<Question> read_questions(const std::filesystem::path& path, const QuestionEncoding& encoding);

}  // namespace flasheva
