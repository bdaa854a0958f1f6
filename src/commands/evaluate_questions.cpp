#include "src/commands/evaluate_questions.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "src/commands/figures.h"
#include "src/core/file.h"
#include "src/evaluation/accuracy.h"
#include "src/io/model_folder.h"

namespace flasheva {

using nlohmann::ordered_json;

namespace {

QuestionEncoding encoding_for(const ModelConfig& config, const Tokenizer* tokenizer,
                              std::int64_t max_tokens) {
  QuestionEncoding encoding{tokenizer, {}, config.vocab_size, max_tokens};
  if (config.bos_token_id)
    encoding.prefix_token = static_cast<std::int32_t>(*config.bos_token_id);
  else if (config.eos_token_id)
    encoding.prefix_token = static_cast<std::int32_t>(*config.eos_token_id);
  else if (tokenizer != nullptr)
    encoding.prefix_token = tokenizer->eos_token_id();
  return encoding;
}

std::string number(const ordered_json& value) {
  return value.is_null() ? "-" : fmt::format("{:.4g}", value.get<double>());
}

void print_row(const std::string& name, const std::string& distances, const ordered_json& row) {
  const std::string second = row.contains("acc_norm") ? "acc_norm" : "perplexity";
  fmt::print("{:<24} {:>13} {:>9} {:>9} {:>9} {:>11} {:>9}\n", name, distances, row["questions"].dump(),
             number(row["acc"]), number(row["acc_stderr"]), number(row[second]),
             number(row[second + "_stderr"]));
}

void print_rows(const std::string& name, const ordered_json& rows) {
  print_row(name, "all", rows);
  if (!rows.contains("distances")) return;
  for (const ordered_json& row : rows["distances"])
    print_row("", fmt::format("{}-{}", row["from"].dump(), row["to"].dump()), row);
}

void print_table(const ordered_json& figures) {
  if (!figures.contains("groups") && !figures.contains("distances")) return;
  fmt::print("\n{:<24} {:>13} {:>9} {:>9} {:>9} {:>11} {:>9}\n", "group", "distance", "questions", "acc",
             "+-", figures.contains("acc_norm") ? "acc_norm" : "perplexity", "+-");
  if (figures.contains("groups"))
    for (const ordered_json& group : figures["groups"]) print_rows(group["group"], group);
  print_rows("all", figures);
}

std::string details_of(const std::vector<Question>& questions, const Scores& scores) {
  std::string lines;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    ordered_json line = {{"line", questions[i].line}};
    if (questions[i].answer) {
      for (const ContinuationScore& score : scores[i]) {
        line["log_likelihoods"].push_back(score.log_likelihood);
        line["greedy"].push_back(score.greedy);
      }
      const Prediction prediction = predict(questions[i], scores[i]);
      line.update({{"answer", *questions[i].answer},
                   {"prediction", prediction.choice},
                   {"prediction_norm", prediction.choice_norm}});
    } else {
      line.update({{"log_likelihood", scores[i][0].log_likelihood}, {"greedy", scores[i][0].greedy}});
    }
    lines += line.dump() + "\n";
  }
  return lines;
}

}  // namespace

void evaluate_questions(const QuestionOptions& options, Ops& ops) {
  const ModelConfig config = read_model_config(options.model);
  const auto tokenizer = tokenizer_of_folder(options.model);
  const std::int64_t max_tokens = options.max_tokens.value_or(config.max_position_embeddings);
  const std::vector<Question> questions =
      read_questions(options.questions, encoding_for(config, tokenizer.get(), max_tokens));

  const ScoringPlan plan = plan_scoring(questions, config, max_tokens);
  InferenceModel model(options.model, ops, *parse_name<Precision>(options.precision), plan.largest,
                       "lower --sequence-length or use --precision bf16");
  const Scores scores = score(model, questions, plan);

  ordered_json figures = accuracy_of(questions, scores);
  figures["truncated"] = plan.truncated;
  print_figures(figures, options.json);
  print_table(figures);
  if (!options.details.empty()) write_file_atomically(options.details, details_of(questions, scores));
}

}  // namespace flasheva
