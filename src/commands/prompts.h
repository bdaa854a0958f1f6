// The prompts of `generate`: one from the command line, or a line of a JSONL file each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/config/model_config.h"
#include "src/inference/generator.h"
#include "src/io/tokenizer.h"

namespace flasheva {

// As many as lines; `lines` is empty for a prompt of the command line.
struct Prompts {
  std::vector<std::vector<std::int32_t>> tokens;
  std::vector<std::string> places;  // where each stands, for messages
  std::vector<nlohmann::ordered_json> lines;
};

// `tokenizer` may be null. Error{data}: no tokenizer. Error{usage}: no token.
Prompts prompt_of_text(const std::string& text, const Tokenizer* tokenizer, const std::string& model);

// {"prompt": text} or {"tokens": [ids]} a line; other keys are kept. Error{data} with file and line for
// anything else, an empty prompt, an id that the model does not have.
Prompts read_prompts(const std::filesystem::path& path, const Tokenizer* tokenizer,
                     const ModelConfig& config);

// The line's keys, and "text" (where there is a tokenizer), "new_tokens", "finish"; ends with a newline.
std::string line_of(nlohmann::ordered_json line, const Generation& generation, bool with_text);

}  // namespace flasheva
