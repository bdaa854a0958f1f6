// flasheva generate MODEL --prompt TEXT | --input F.jsonl: what follows prompts.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/commands/commands.h"
#include "src/commands/device_options.h"
#include "src/commands/number_checks.h"
#include "src/commands/prompts.h"
#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/text.h"
#include "src/io/model_folder.h"

namespace flasheva {

namespace {

struct Options {
  std::string model, prompt, input, output, precision = "fp32";
  std::int64_t batch = 8;
  std::optional<std::int64_t> max_length;  // the model's max_position_embeddings
  GenerationOptions generation;
  DeviceOptions device;
};

// The tokens that the longest sequence can reach. Error{data or usage} names a prompt that leaves no room.
std::int64_t longest_sequence(const Prompts& prompts, const GenerationOptions& options) {
  std::int64_t longest = 0;
  for (std::size_t i = 0; i < prompts.tokens.size(); ++i) {
    const auto length = static_cast<std::int64_t>(prompts.tokens[i].size());
    if (length >= options.max_length)
      fail(ExitCode::data,
           "{}: {} tokens leave no room for a new one in {} (--max-length, by default the model's "
           "max_position_embeddings); shorten the prompt or raise --max-length",
           prompts.places[i], length, options.max_length);
    longest = std::max(longest, length);
  }
  return std::min(options.max_length, longest + options.max_new_tokens);
}

void print_speed(const GenerationSpeed& speed, std::size_t cache_bytes) {
  const auto rate = [](std::int64_t tokens, double seconds) {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
  };
  fmt::print(stderr, "prompts: {} tokens, {:.1f} tokens/s; new: {} tokens, {:.1f} tokens/s; cache {}\n",
             speed.prompt_tokens, rate(speed.prompt_tokens, speed.prompt_seconds), speed.new_tokens,
             rate(speed.new_tokens, speed.decode_seconds), format_bytes(cache_bytes));
}

// The prompt and what follows it, as it comes.
void stream(Generator& generator, const Options& options, const Prompts& prompts) {
  const auto show = [](std::string_view text) {
    fmt::print("{}", text);
    std::fflush(stdout);
  };
  show(options.prompt);
  generator.run(
      prompts.tokens, [](std::size_t, const Generation&) {},
      [&](std::size_t, std::string_view text) { show(text); });
  show("\n");
}

// A line a prompt, in the order of the prompts, each as soon as those before it are there.
void write_lines(Generator& generator, const Options& options, const Prompts& prompts, bool with_text) {
  std::optional<FileWriter> file;
  if (!options.output.empty()) file.emplace(options.output);
  std::map<std::size_t, std::string> waiting;
  std::size_t next = 0;
  generator.run(prompts.tokens, [&](std::size_t prompt, const Generation& generation) {
    waiting[prompt] = line_of(prompts.lines[prompt], generation, with_text);
    for (; waiting.contains(next); waiting.erase(next++)) {
      if (file)
        file->write(waiting[next]);
      else
        fmt::print("{}", waiting[next]);
    }
  });
  if (file) file->close();
}

void run(Options options) {
  refuse_same_file(options.input, options.output, "--output");
  const auto ops = options.device.make_ops();
  const auto tokenizer = tokenizer_of_folder(options.model);
  const ModelConfig config = read_model_config(options.model);
  const Prompts prompts = options.input.empty()
                              ? prompt_of_text(options.prompt, tokenizer.get(), options.model)
                              : read_prompts(options.input, tokenizer.get(), config);
  if (!options.generation.stop.empty() && tokenizer == nullptr)
    fail(ExitCode::data, "{}: no tokenizer.json; --stop needs a tokenizer", options.model);
  for (const std::vector<std::int32_t>& tokens : prompts.tokens)
    if (*std::max_element(tokens.begin(), tokens.end()) >= config.vocab_size)
      fail(ExitCode::data, "{}: the tokenizer has ids that are not below the model's vocab_size {}",
           options.model, config.vocab_size);
  options.generation.max_length = options.max_length.value_or(config.max_position_embeddings);

  const auto sequences = std::min(options.batch, static_cast<std::int64_t>(prompts.tokens.size()));
  Decoder decoder(options.model, *ops, *parse_name<Precision>(options.precision),
                  {sequences, longest_sequence(prompts, options.generation)});
  options.generation.max_length = decoder.capacity().tokens;
  Generator generator(decoder, tokenizer.get(), options.generation);
  if (options.input.empty())
    stream(generator, options, prompts);
  else
    write_lines(generator, options, prompts, tokenizer != nullptr);
  print_speed(generator.speed(), decoder.cache_bytes());
}

}  // namespace

void add_generate(CLI::App& program) {
  auto options = std::make_shared<Options>();
  GenerationOptions& generation = options->generation;
  SamplingOptions& sampling = generation.sampling;
  CLI::App* command = program.add_subcommand("generate", "Text that goes on from prompts");
  command->add_option("MODEL", options->model, "model or checkpoint folder")->required();
  auto* from = command->add_option_group("prompts")->require_option(1);
  from->add_option("--prompt", options->prompt, "text to go on from; what follows is shown as it comes");
  auto* input = from->add_option("--input", options->input,
                                 "JSONL file: {\"prompt\": text} or {\"tokens\": [ids]} a line");
  command->add_option("--output", options->output, "JSONL file to write; default: standard output")
      ->needs(input);
  command->add_option("--stop", generation.stop, "end before this text; may be given several times")
      ->check([](const std::string& text) { return text.empty() ? "must not be empty" : ""; });
  command->option_defaults()->always_capture_default();
  command->add_option("--batch", options->batch, "prompts of --input that are continued at a time")
      ->check(integer_from(1));
  command->add_option("--max-new-tokens", generation.max_new_tokens, "tokens to add")
      ->check(integer_from(1, max_tokens));
  command
      ->add_option("--max-length", options->max_length,
                   "tokens of prompt and continuation; default: the model's max_position_embeddings")
      ->check(integer_from(2, max_tokens));
  command->add_flag("--greedy", sampling.greedy, "always the most likely token");
  command->add_option("--temperature", sampling.temperature, "divides the logits")
      ->check(number_that_is(above_zero));
  command->add_option("--top-k", sampling.top_k, "only the k most likely tokens; 0: all")
      ->check(integer_from(0));
  command->add_option("--top-p", sampling.top_p, "only the most likely tokens that reach this probability")
      ->check(number_that_is(above_zero_to_one));
  command
      ->add_option("--repetition-penalty", sampling.repetition_penalty,
                   "divides positive and multiplies negative logits of tokens that occurred")
      ->check(number_that_is(above_zero));
  command->add_option("--seed", sampling.seed, "of the random draws")->check(integer_from(0));
  command->add_option("--precision", options->precision, "fp32, bf16 or fp16")
      ->check(CLI::IsMember(names_of<Precision>()));
  options->device.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace flasheva
