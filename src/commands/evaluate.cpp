// flasheva evaluate MODEL --data F.h5: loss over every whole sequence, then the remainder as a shorter one.
// flasheva evaluate MODEL --multiple-choice F.jsonl: questions (evaluate_questions.h).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>
#include <string>

#include "src/commands/commands.h"
#include "src/commands/device_options.h"
#include "src/commands/evaluate_questions.h"
#include "src/commands/figures.h"
#include "src/commands/number_checks.h"
#include "src/core/clock.h"
#include "src/core/error.h"
#include "src/core/file.h"
#include "src/inference/inference_model.h"
#include "src/io/model_folder.h"
#include "src/io/token_file.h"
#include "src/io/tokenizer.h"
#include "src/training/batches.h"

namespace flasheva {

namespace {

struct Options {
  std::string model, data, questions, details, json, precision = "fp32";
  std::optional<std::int64_t>
      sequence_length;  // the model's max_position_embeddings, or the whole file if shorter
  bool attention_error = false;
  DeviceOptions device;
};

struct Totals {
  double nats = 0;
  std::int64_t targets = 0, correct = 0, tokens = 0;
  std::int64_t bytes = 0;  // of counted targets, where there is a tokenizer
};

constexpr std::int64_t rows_per_batch = 4096;

// Adds up sequences of one length, `first_token` on.
void evaluate_range(InferenceModel& model, TokenFile& file, const Tokenizer* tokenizer,
                    std::int64_t first_token, std::int64_t sequences, std::int64_t length, Totals& totals,
                    AttentionErrors* errors) {
  const std::int64_t per_batch = std::min(sequences, std::max<std::int64_t>(1, rows_per_batch / length));
  HostBatch host;
  MemoryPlan plan;
  host.plan(plan, per_batch, length);
  Buffer memory(plan.bytes());
  memory.bind(plan);
  for (std::int64_t first = 0; first < sequences; first += per_batch) {
    const std::int64_t count = std::min(per_batch, sequences - first), rows = count * length;
    for (std::int64_t i = 0; i < count; ++i)
      read_tokens(file, first_token + (first + i) * length, host, i, length);
    const TokenBatch batch{
        {count, length}, host.tokens.rows(0, rows), host.targets.rows(0, rows), host.mask.rows(0, rows)};
    const LossSums sums = model.evaluate(batch, errors);
    totals.nats += sums.nats;
    totals.correct += sums.correct;
    totals.targets += counted_targets(host, count, length);
    totals.tokens += rows;
    if (tokenizer != nullptr) totals.bytes += bytes_of_targets(host, count, length, *tokenizer);
  }
}

nlohmann::ordered_json evaluate(const Options& options, Ops& ops) {
  TokenFile file(options.data);
  const std::int64_t available = file.info().tokens - 1;  // inputs that have a next token
  if (available < 1) fail(ExitCode::data, "{}: at least 2 tokens are needed", options.data);
  const ModelConfig config = read_model_config(options.model);
  if (file.info().vocab_size > config.vocab_size)
    fail(ExitCode::data, "{}: vocab_size {} is larger than the model's {}", options.data,
         file.info().vocab_size, config.vocab_size);
  const auto tokenizer = tokenizer_for_tokens(options.model, options.data, file.info().tokenizer);
  const std::int64_t wanted = options.sequence_length.value_or(config.max_position_embeddings);
  const std::int64_t length = std::min(wanted, available), whole = available / length,
                     rest = available % length;

  const std::int64_t per_batch = std::min(whole, std::max<std::int64_t>(1, rows_per_batch / length));
  InferenceModel model(options.model, ops, *parse_name<Precision>(options.precision), {per_batch, length},
                       "lower --sequence-length or use --precision bf16");
  const double start = seconds_now();
  Totals totals;
  AttentionErrors errors(model.config());
  AttentionErrors* const asked = options.attention_error ? &errors : nullptr;
  evaluate_range(model, file, tokenizer.get(), 0, whole, length, totals, asked);
  if (rest > 0) evaluate_range(model, file, tokenizer.get(), whole * length, 1, rest, totals, asked);
  const double seconds = seconds_now() - start;
  if (totals.targets == 0) fail(ExitCode::data, "{}: the loss mask counts no target", options.data);

  const auto targets = static_cast<double>(totals.targets);
  nlohmann::ordered_json result = {
      {"loss", totals.nats / targets}, {"perplexity", std::exp(totals.nats / targets)},
      {"bits_per_byte", nullptr},      {"accuracy", static_cast<double>(totals.correct) / targets},
      {"tokens", totals.targets},      {"tokens_per_second", static_cast<double>(totals.tokens) / seconds}};
  if (totals.bytes > 0)
    result["bits_per_byte"] = totals.nats / std::numbers::ln2 / static_cast<double>(totals.bytes);
  if (options.attention_error) result["attention_error"] = errors.relative();
  return result;
}

void run(const Options& options) {
  if (options.data.empty() && options.questions.empty())
    fail(ExitCode::usage, "evaluate: --data or --multiple-choice is required");
  const std::string& input = options.data.empty() ? options.questions : options.data;
  refuse_same_file(input, options.json, "--json");
  refuse_same_file(input, options.details, "--details");
  const auto ops = options.device.make_ops();
  if (!options.questions.empty())
    return evaluate_questions({options.model, options.questions, options.json, options.details,
                               options.precision, options.sequence_length},
                              *ops);
  const nlohmann::ordered_json figures = evaluate(options, *ops);
  print_figures(figures, options.json);
  if (options.attention_error) print_by_layer("attention_error", figures["attention_error"]);
}

}  // namespace

void add_evaluate(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand(
      "evaluate", "Loss, perplexity and accuracy of a model on a token file, or its answers to questions");
  command->add_option("MODEL", options->model, "model or checkpoint folder")->required();
  CLI::Option* data = command->add_option("--data", options->data, "HDF5 token file");
  CLI::Option* questions =
      command->add_option("--multiple-choice", options->questions, "JSONL file of questions")->excludes(data);
  command
      ->add_option("--details", options->details, "write every question's log-likelihoods to this JSONL file")
      ->needs(questions);
  command
      ->add_option("--sequence-length", options->sequence_length,
                   "tokens a sequence; of a question: at most; default: the model's max_position_embeddings")
      ->check(integer_from(1));
  command->option_defaults()->always_capture_default();
  command->add_option("--precision", options->precision, "fp32, bf16 or fp16")
      ->check(CLI::IsMember(names_of<Precision>()));
  command
      ->add_flag("--attention-error", options->attention_error,
                 "also how far each layer's attention is from exact softmax attention")
      ->excludes(questions);
  command->add_option("--json", options->json, "also write the figures to this file");
  options->device.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace flasheva
