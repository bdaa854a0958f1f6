// flasheva generate MODEL --prompt TEXT: text that goes on from a prompt, one forward pass a token.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "src/commands/commands.h"
#include "src/commands/device_options.h"
#include "src/core/error.h"
#include "src/inference/inference_model.h"
#include "src/inference/sampler.h"
#include "src/io/tokenizer.h"

namespace flasheva {

namespace {

struct Options {
  std::string model, prompt, precision = "fp32";
  std::vector<std::string> stop;
  std::int64_t max_new_tokens = 128;
  SamplingOptions sampling;
  DeviceOptions device;
};

// True once the text ends with, or holds, one of the stop strings; `text` is then cut before it.
bool stopped(std::string& text, const std::vector<std::string>& stop) {
  for (const std::string& end : stop) {
    const std::size_t at = text.find(end);
    if (at == std::string::npos) continue;
    text.resize(at);
    return true;
  }
  return false;
}

void run(const Options& options) {
  const auto ops = options.device.make_ops();
  const auto tokenizer = tokenizer_of_folder(options.model);
  if (tokenizer == nullptr)
    fail(ExitCode::data, "{}: no tokenizer.json; --prompt needs a tokenizer", options.model);
  std::vector<std::int32_t> tokens = tokenizer->encode(options.prompt);
  if (tokens.empty()) fail(ExitCode::usage, "--prompt is empty; give at least one character");
  const auto prompt_tokens = static_cast<std::int64_t>(tokens.size());

  InferenceModel model(options.model, *ops, *parse_name<Precision>(options.precision),
                       {1, prompt_tokens + options.max_new_tokens});
  const std::int64_t V = model.config().vocab_size;
  std::vector<float> logits(static_cast<std::size_t>(V));
  std::vector<std::byte> computed(static_cast<std::size_t>(V) * size_in_bytes(model.compute_type()));
  std::string text;
  for (std::int64_t i = 0; i < options.max_new_tokens; ++i) {
    const auto T = static_cast<std::int64_t>(tokens.size());
    const Tensor out{computed.data(), model.compute_type(), {1, V}, Device::cpu};
    model.logits(out, view_of(tokens.data(), {T}), {1, T});
    ops->cast(view_of(logits.data(), {1, V}), out);
    const std::int32_t token = sample(logits, options.sampling, 0, static_cast<std::uint32_t>(T));
    if (model.config().eos_token_id && token == *model.config().eos_token_id) break;
    tokens.push_back(token);
    text = tokenizer->decode({tokens.begin() + prompt_tokens, tokens.end()});
    if (stopped(text, options.stop)) break;
  }
  fmt::print("{}{}\n", options.prompt, text);
}

}  // namespace

void add_generate(CLI::App& program) {
  auto options = std::make_shared<Options>();
  SamplingOptions& sampling = options->sampling;
  CLI::App* command = program.add_subcommand("generate", "Text that goes on from a prompt");
  command->add_option("MODEL", options->model, "model or checkpoint folder")->required();
  command->add_option("--prompt", options->prompt, "text to go on from")->required();
  command->add_option("--max-new-tokens", options->max_new_tokens, "tokens to add")
      ->check(CLI::PositiveNumber);
  command->add_flag("--greedy", sampling.greedy, "always the most likely token");
  command->add_option("--temperature", sampling.temperature, "divides the logits")
      ->check(CLI::PositiveNumber);
  command->add_option("--top-k", sampling.top_k, "only the k most likely tokens; 0: all")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--top-p", sampling.top_p, "only the most likely tokens that reach this probability")
      ->check(CLI::Range(1e-6, 1.0));
  command->add_option("--seed", sampling.seed, "of the random draws");
  command->add_option("--stop", options->stop, "end before this text; may be given several times");
  command->add_option("--precision", options->precision, "fp32 or bf16")
      ->check(CLI::IsMember(names_of<Precision>()));
  options->device.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace flasheva
