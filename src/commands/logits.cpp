// flasheva logits MODEL --tokens T.safetensors --output L.safetensors: for parity checks.
#include <memory>
#include <string>
#include <vector>

#include "src/commands/commands.h"
#include "src/commands/device_options.h"
#include "src/core/error.h"
#include "src/core/file.h"
#include "src/inference/inference_model.h"
#include "src/io/model_folder.h"
#include "src/io/safetensors.h"

namespace flasheva {

namespace {

struct Options {
  std::string model, tokens, output, precision = "fp32";
  DeviceOptions device;
};

std::vector<std::int32_t> read_token_matrix(const Options& options, const StoredTensor& tensor,
                                            std::int64_t vocab_size) {
  if (tensor.shape.size() != 2 || tensor.size() == 0)
    fail(ExitCode::data, "{}: tensor tokens must be int32 (B, T) and not empty", options.tokens);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(tensor.size()));
  load_tensor(view_of(tokens.data(), {tensor.shape[0], tensor.shape[1]}), tensor,
              options.tokens + ": tensor tokens");
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= vocab_size)
      fail(ExitCode::data, "{}: token {} at place {} is not below the model's vocab_size {}", options.tokens,
           tokens[i], i, vocab_size);
  return tokens;
}

void run(const Options& options) {
  refuse_same_file(options.tokens, options.output, "--output");
  const auto ops = options.device.make_ops();
  const SafetensorsReader input{std::filesystem::path(options.tokens)};
  const StoredTensor& stored_tokens = input.at("tokens");
  const std::int64_t V = read_model_config(options.model).vocab_size;
  std::vector<std::int32_t> tokens = read_token_matrix(options, stored_tokens, V);
  const std::int64_t B = stored_tokens.shape[0], T = stored_tokens.shape[1];

  InferenceModel model(options.model, *ops, *parse_name<Precision>(options.precision), {1, T},
                       "give it shorter sequences or use --precision bf16");
  std::vector<float> logits(static_cast<std::size_t>(B * T * V));
  std::vector<std::byte> computed(static_cast<std::size_t>(T * V) * size_in_bytes(model.compute_type()));
  for (std::int64_t b = 0; b < B; ++b) {
    const Tensor out{computed.data(), model.compute_type(), {T, V}, Device::cpu};
    model.logits(out, view_of(tokens.data() + b * T, {T}), {1, T});
    load_tensor(view_of(logits.data() + b * T * V, {T, V}), stored(out), "logits");
  }
  const StoredTensor out{StoredType::F32, {B, T, V}, std::as_bytes(std::span<const float>(logits))};
  write_safetensors(options.output, {{"logits", out}});
}

}  // namespace

void add_logits(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      program.add_subcommand("logits", "Logits (B, T, V) of given tokens (B, T), for parity checks");
  command->add_option("MODEL", options->model, "model or checkpoint folder")->required();
  command->add_option("--tokens", options->tokens, "safetensors file with int32 `tokens` (B, T)")->required();
  command->add_option("--output", options->output, "safetensors file to write, float32 `logits` (B, T, V)")
      ->required();
  command->option_defaults()->always_capture_default();
  command->add_option("--precision", options->precision, "fp32, bf16 or fp16")
      ->check(CLI::IsMember(names_of<Precision>()));
  options->device.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace flasheva
