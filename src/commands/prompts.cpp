#include "src/commands/prompts.h"

#include <fmt/format.h>

#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/text.h"

namespace flasheva {

namespace {

// Keys that nobody knows are written again, which takes stack for every level.
constexpr int max_depth = 100;

std::vector<std::int32_t> ids_of(const nlohmann::ordered_json& ids, const std::string& place,
                                 std::int64_t vocab_size) {
  if (!ids.is_array()) fail(ExitCode::data, "{}: `tokens` must be an array of ids", place);
  std::vector<std::int32_t> tokens;
  for (const auto& id : ids) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= vocab_size)
      fail(ExitCode::data, "{}: `tokens` holds {}; an id is an integer from 0 to {}", place,
           printable(id.dump()), vocab_size - 1);
    tokens.push_back(id.get<std::int32_t>());
  }
  return tokens;
}

std::vector<std::int32_t> tokens_of_line(const nlohmann::ordered_json& line, const std::string& place,
                                         const Tokenizer* tokenizer, std::int64_t vocab_size) {
  const bool text = line.is_object() && line.contains("prompt");
  if (!line.is_object() || text == line.contains("tokens"))
    fail(ExitCode::data, "{}: expected {{\"prompt\": text}} or {{\"tokens\": [ids]}}", place);
  if (!text) return ids_of(line["tokens"], place, vocab_size);
  if (!line["prompt"].is_string()) fail(ExitCode::data, "{}: `prompt` must be a string", place);
  if (tokenizer == nullptr)
    fail(ExitCode::data, "{}: the model's folder has no tokenizer.json; give `tokens` instead of `prompt`",
         place);
  return tokenizer->encode(line["prompt"].get<std::string>());
}

}  // namespace

Prompts prompt_of_text(const std::string& text, const Tokenizer* tokenizer, const std::string& model) {
  if (tokenizer == nullptr)
    fail(ExitCode::data, "{}: no tokenizer.json; --prompt needs a tokenizer, --input takes token ids", model);
  Prompts prompts{{tokenizer->encode(text)}, {"--prompt"}, {}};
  if (prompts.tokens[0].empty()) fail(ExitCode::usage, "--prompt is empty; give at least one character");
  return prompts;
}

Prompts read_prompts(const std::filesystem::path& path, const Tokenizer* tokenizer,
                     const ModelConfig& config) {
  const std::string content = read_text_file(path);
  Prompts prompts;
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < content.size();) {
    const std::size_t end = std::min(content.find('\n', begin), content.size());
    const std::string_view text = std::string_view(content).substr(begin, end - begin);
    begin = end + 1;
    const std::string place = fmt::format("{}:{}", path.string(), ++number);
    if (text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const auto check_depth = [&](int depth, auto, const auto&) {
      if (depth > max_depth) fail(ExitCode::data, "{}: nested more than {} deep", place, max_depth);
      return true;
    };
    auto line = nlohmann::ordered_json::parse(text, check_depth, false);
    if (line.is_discarded()) fail(ExitCode::data, "{}: not JSON: {}", place, printable(text));
    prompts.tokens.push_back(tokens_of_line(line, place, tokenizer, config.vocab_size));
    if (prompts.tokens.back().empty())
      fail(ExitCode::data, "{}: the prompt is empty; give at least one token", place);
    prompts.places.push_back(place);
    prompts.lines.push_back(std::move(line));
  }
  if (prompts.tokens.empty()) fail(ExitCode::data, "{}: holds no prompt", path.string());
  return prompts;
}

std::string line_of(nlohmann::ordered_json line, const Generation& generation, bool with_text) {
  if (with_text) line["text"] = generation.text;
  line["new_tokens"] = generation.new_tokens;
  line["finish"] = name_of(generation.finish);
  // The last character may be cut.
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace flasheva
