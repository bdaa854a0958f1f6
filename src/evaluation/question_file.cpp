#include "src/evaluation/question_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/text.h"

namespace flasheva {

using nlohmann::json;

namespace {

// What Python's str.rstrip() removes.
constexpr std::string_view white_space =
    " \t\n\v\f\r\x1c\x1d\x1e\x1f\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008"
    "\u2009\u200a\u2028\u2029\u202f\u205f\u3000";

bool continues_character(char byte) { return (byte & 0xc0) == 0x80; }  // of UTF-8

std::string_view without_trailing_space(std::string_view text) {
  while (!text.empty()) {
    std::size_t last = text.size() - 1;
    while (last > 0 && continues_character(text[last])) --last;
    if (white_space.find(text.substr(last)) == std::string_view::npos) break;
    text = text.substr(0, last);
  }
  return text;
}

std::int64_t characters(std::string_view utf8) {
  return std::count_if(utf8.begin(), utf8.end(), [](char c) { return !continues_character(c); });
}

// One line of the file; every error names it.
class QuestionLine {
 public:
  QuestionLine(std::string_view text, std::string where, const QuestionEncoding& encoding)
      : where_(std::move(where)), encoding_(encoding) {
    try {
      object_ = json::parse(text);
    } catch (const json::exception& error) {
      refuse("not JSON: {}", printable(error.what(), 200));
    }
    if (!object_.is_object()) refuse("not a JSON object");
  }

  Question read() const {
    Question question;
    question.group = text_at("group", "");
    if (object_.contains("distance")) question.distance = integer_at("distance");
    const Value context = value_at("context");
    question.context = context.text ? encode(without_trailing_space(*context.text)) : context.tokens;
    const bool has_choices = has("choices");
    if (has_choices == has("continuation")) refuse("needs either `choices` and `answer`, or `continuation`");
    if (has_choices) {
      read_choices(question, context);
    } else {
      const Value value = value_at("continuation");
      const char* name = value.text ? "continuation" : "continuation_tokens";
      question.choices = {continuation(question, context, value, "", name)};
    }
    if (question.context.empty()) question.context = {prefix_token()};
    return question;
  }

 private:
  // A text, or the ids that came instead.
  struct Value {
    std::optional<std::string> text;
    std::vector<std::int32_t> tokens;
  };

  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ExitCode::data, "{}: {}", where_, fmt::format(format, std::forward<Args>(args)...));
  }

  bool has(const std::string& key) const {
    return object_.contains(key) || object_.contains(key + "_tokens");
  }

  Value value_at(const std::string& key) const {
    const auto text = object_.find(key), tokens = object_.find(key + "_tokens");
    if ((text == object_.end()) == (tokens == object_.end()))
      refuse("needs either `{}` or `{}_tokens`", key, key);
    return text != object_.end() ? as_text(*text, key) : as_tokens(*tokens, key + "_tokens");
  }

  Value as_text(const json& value, const std::string& name) const {
    if (!value.is_string()) refuse("{} is not a text", name);
    if (encoding_.tokenizer == nullptr)
      refuse("{} is a text, and the model has no tokenizer.json; give {}_tokens", name,
             name.substr(0, name.find(' ')));
    return {value.get<std::string>(), {}};
  }

  Value as_tokens(const json& value, const std::string& name) const {
    if (!value.is_array()) refuse("{} is not a list of token ids", name);
    Value out;
    for (const json& id : value) {
      if (!id.is_number_integer() || id < 0 || id >= encoding_.vocab_size)
        refuse("{} has {}, not a token id below the model's vocab_size {}", name,
               id.is_structured() ? id.type_name() : printable(id.dump(-1, ' ', true), 40),
               encoding_.vocab_size);
      out.tokens.push_back(id.get<std::int32_t>());
    }
    return out;
  }

  std::string text_at(const char* key, const char* otherwise) const {
    const auto found = object_.find(key);
    if (found == object_.end()) return otherwise;
    if (!found->is_string()) refuse("{} is not a text", key);
    return found->get<std::string>();
  }

  std::int64_t integer_at(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end() || !found->is_number_integer() || *found < 0 || *found > max_integer)
      refuse("{} must be an integer from 0 on", key);
    return found->get<std::int64_t>();
  }

  void read_choices(Question& question, const Value& context) const {
    const bool texts = object_.contains("choices");
    const std::string name = texts ? "choices" : "choices_tokens";
    if (texts && object_.contains("choices_tokens")) refuse("needs either `choices` or `choices_tokens`");
    const json& list = object_[name];
    if (!list.is_array() || list.empty()) refuse("{} is empty or not a list", name);
    const std::string delimiter = text_at("delimiter", "");
    for (std::size_t i = 0; i < list.size(); ++i) {
      const std::string choice = fmt::format("{} {}", name, i);
      const Value value = texts ? as_text(list[i], choice) : as_tokens(list[i], choice);
      question.choices.push_back(continuation(question, context, value, delimiter, choice));
    }
    question.answer = integer_at("answer");
    if (*question.answer >= std::ssize(question.choices))
      refuse("answer {} names none of the {} choices; they count from 0", *question.answer, list.size());
  }

  Continuation continuation(const Question& question, const Value& context, const Value& value,
                            const std::string& delimiter, const std::string& name) const {
    if (context.text.has_value() != value.text.has_value())
      refuse("{}: context and continuations must all be texts, or all token ids", name);
    Continuation out;
    if (value.text) {
      if (value.text->empty()) refuse("{} is empty", name);
      out.tokens = encode(*context.text + delimiter + *value.text);
      out.tokens.erase(out.tokens.begin(),
                       out.tokens.begin() + std::min(std::ssize(question.context), std::ssize(out.tokens)));
      out.length = characters(*value.text);
    } else {
      out.tokens = value.tokens;
      out.length = std::ssize(value.tokens);
    }
    // Where the prefix token is also what the continuation begins with, it is given once and not scored.
    if (question.context.empty() && !out.tokens.empty() && out.tokens.front() == prefix_token())
      out.tokens.erase(out.tokens.begin());
    if (out.tokens.empty()) refuse("{} has no token of its own to score", name);
    if (std::ssize(out.tokens) > encoding_.max_tokens)
      refuse("{} has {} tokens, and the model sees {} at once", name, out.tokens.size(),
             encoding_.max_tokens);
    return out;
  }

  std::vector<std::int32_t> encode(std::string_view text) const {
    std::vector<std::int32_t> tokens = encoding_.tokenizer->encode(text);
    for (const std::int32_t token : tokens)
      if (token >= encoding_.vocab_size)
        refuse("the tokenizer gives token {}, not below the model's vocab_size {}", token,
               encoding_.vocab_size);
    return tokens;
  }

  std::int32_t prefix_token() const {
    if (!encoding_.prefix_token)
      refuse("the context is empty, and the model has neither a bos_token_id nor an eos_token_id");
    return *encoding_.prefix_token;
  }

  static constexpr std::int64_t max_integer = std::int64_t{1} << 53;

  json object_;
  std::string where_;
  const QuestionEncoding& encoding_;
};

}  // namespace

std::vector<Question> read_questions(const std::filesystem::path& path, const QuestionEncoding& encoding) {
  const MappedFile file(path);
  std::string_view rest{reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
  std::vector<Question> questions;
  for (std::int64_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}:{}", path.string(), number);
    questions.push_back(QuestionLine(line, where, encoding).read());
    questions.back().line = number;
    if (questions.back().answer.has_value() != questions.front().answer.has_value())
      fail(ExitCode::data,
           "{}: choices and a continuation in one file (see line {}); give each a file of its own", where,
           questions.front().line);
  }
  if (questions.empty()) fail(ExitCode::data, "{}: no question in it", path.string());
  return questions;
}

}  // namespace flasheva
