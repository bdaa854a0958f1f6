#include "src/commands/bench_decode.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/commands/figures.h"
#include "src/commands/machine_peaks.h"
#include "src/commands/operation_times.h"
#include "src/config/config.h"
#include "src/core/clock.h"
#include "src/core/error.h"
#include "src/core/machine.h"
#include "src/inference/decoder.h"
#include "src/training/flops.h"
#include "src/training/gemm_peak.h"
#include "src/training/recipe.h"

namespace flasheva {

namespace {

// Bytes of keys and values, of tokens and chunks, that the token at `position` of one sequence reads.
double cache_bytes_read(const ModelConfig& model, std::int64_t position, std::size_t element_bytes) {
  double rows = 0;
  for (std::int64_t layer = 0; layer < model.num_hidden_layers; ++layer) {
    const Visibility visibility = model.visibility(layer);
    rows += static_cast<double>(position + 1 - visibility.first_token(position) +
                                visibility.visible_chunks(position));
  }
  return rows * 2 * static_cast<double>(model.hidden_size) * static_cast<double>(element_bytes);
}

double matrix_parameters(const ModelConfig& model) {
  const auto D = static_cast<double>(model.hidden_size), I = static_cast<double>(model.intermediate_size);
  return static_cast<double>(model.num_hidden_layers) * (4 * D * D + 2 * D * I) +
         static_cast<double>(model.vocab_size) * D;
}

// One step: a token of every sequence at `position`, the next one chosen greedily.
class Stepper {
 public:
  Stepper(Decoder& decoder, std::int64_t batch) : decoder_(decoder) {
    for (std::int64_t i = 0; i < batch; ++i) next_.push_back({static_cast<std::int32_t>(i), 0, 0});
  }

  double seconds(std::int64_t position) {
    const double start = seconds_now();
    for (NextToken& next : next_) next.position = static_cast<std::int32_t>(position);
    const std::span<const std::int32_t> tokens = decoder_.decode_greedy(next_);
    for (std::size_t i = 0; i < next_.size(); ++i) next_[i].token = tokens[i];
    return seconds_now() - start;
  }

 private:
  Decoder& decoder_;
  std::vector<NextToken> next_;
};

struct Steps {
  double seconds = 0, cache_bytes_read = 0;  // of a timed step, on the mean
  std::size_t element_bytes = 0;             // of weights and caches
  std::size_t cache_bytes = 0, peak_memory_bytes = 0, gpu_memory_bytes = 0;
};

// The decoder is gone then, and the peaks have its memory.
Steps run_steps(const BenchDecodeOptions& options, const ModelConfig& model, Ops& ops, TimedOps& timed) {
  const std::int64_t B = options.batch;
  Decoder decoder(model, options.operations ? timed : ops, *parse_name<Precision>(options.precision),
                  {B, options.context + options.new_tokens}, 1);
  decoder.fill_caches(1);
  Steps steps{.element_bytes = size_in_bytes(decoder.compute_type())};
  Stepper stepper(decoder, B);
  for (int i = 0; i < 2; ++i) stepper.seconds(options.context);  // plans products, records the graph
  timed.clear();
  for (int i = 0; i < options.steps; ++i) {
    const std::int64_t position = timed_position(options, i);
    steps.seconds += stepper.seconds(position) / options.steps;
    steps.cache_bytes_read +=
        static_cast<double>(B) * cache_bytes_read(model, position, steps.element_bytes) / options.steps;
  }
  steps.cache_bytes = decoder.cache_bytes();
  steps.peak_memory_bytes = peak_memory_bytes();
  steps.gpu_memory_bytes = ops.device_memory_taken();
  return steps;
}

}  // namespace

void bench_decode(const BenchDecodeOptions& options) {
  const ModelConfig model = resolve_model(load_config(options.config, options.overrides));
  if (options.context + options.new_tokens > max_tokens)
    fail(ExitCode::usage, "--context {} and --new-tokens {} are too many", options.context,
         options.new_tokens);
  const auto ops = options.device.make_ops();
  const std::int64_t B = options.batch;
  TimedOps timed(*ops);
  const Steps steps = run_steps(options, model, *ops, timed);
  nlohmann::ordered_json figures = {{"precision", options.precision},
                                    {"batch", B},
                                    {"context", options.context},
                                    {"new_tokens", options.new_tokens},
                                    {"tokens_per_second", static_cast<double>(B) / steps.seconds},
                                    {"seconds_per_step", steps.seconds},
                                    {"cache_bytes", steps.cache_bytes},
                                    {"peak_memory_bytes", steps.peak_memory_bytes}};
  if (ops->device() != Device::cpu) figures["gpu_memory_bytes"] = steps.gpu_memory_bytes;
  const std::int64_t D = model.hidden_size, I = model.intermediate_size;
  const DType compute = compute_type(*parse_name<Precision>(options.precision));
  const double flops = measure_gemm_peak(
      *ops, compute, {{B, 3 * D, D}, {B, I, D}, {B, D, I}, {B, model.vocab_size, D}, {4096, 4096, 4096}},
      0.3);
  const double bytes = std::max(measure_copy_peak(*ops), measure_read_peak(*ops));
  const double matrices = matrix_parameters(model);
  const double weight_bytes = matrices * static_cast<double>(steps.element_bytes);
  const double products_limit = std::max(weight_bytes / bytes, 2 * static_cast<double>(B) * matrices / flops);
  const double limit = products_limit + steps.cache_bytes_read / bytes;
  figures["weight_bytes_read"] = weight_bytes;
  figures["cache_bytes_read"] = steps.cache_bytes_read;
  figures["memory_peak_bytes_per_second"] = bytes;
  figures["gemm_peak_flops_per_second"] = flops;
  figures["limit_seconds_per_step"] = limit;
  figures["share_of_limit"] = limit / steps.seconds;
  if (options.operations) figures["operations"] = operations_of(timed, options.steps);
  print_figures(figures, options.json);
  if (options.operations) print_operations(figures["operations"], steps.seconds);
}

}  // namespace flasheva
