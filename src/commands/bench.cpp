// flasheva bench step | attention | decode: measured with synthetic tokens, beside the machine's limit.
#include <fmt/format.h>

#include <memory>
#include <string>

#include "src/commands/bench_attention.h"
#include "src/commands/bench_decode.h"
#include "src/commands/bench_step.h"
#include "src/commands/commands.h"
#include "src/commands/number_checks.h"
#include "src/config/config.h"

namespace flasheva {

namespace {

const CLI::Validator count = integer_from(1, max_tokens), layer_size = integer_from(1, max_layer_size);

void add_step(CLI::App& bench) {
  auto options = std::make_shared<BenchStepOptions>();
  CLI::App* command = bench.add_subcommand("step", "Training steps of a config's phase");
  command->add_option("CONFIG", options->config, "YAML file; its data files are not opened")->required();
  command->add_option("OVERRIDES", options->overrides, "KEY=VALUE, e.g. batch.micro=2");
  command->add_option("--phase", options->phase, "name of the phase; default: the last");
  command->option_defaults()->always_capture_default();
  command->add_option("--steps", options->steps, "timed steps, after one that is not")->check(count);
  command->add_flag("--operations", options->operations, "also print where the time of a step goes");
  command->add_option("--write-start", options->write_start,
                      "measure nothing; write the model that the steps begin with to this folder, and their "
                      "tokens and targets to its tokens.safetensors");
  command->add_option("--json", options->json, "also write the figures to this file");
  options->device.add_to(*command);
  command->callback([options] { bench_step(*options); });
}

void add_attention(CLI::App& bench) {
  auto options = std::make_shared<BenchAttentionOptions>();
  CLI::App* command = bench.add_subcommand("attention", "Attention alone, forward and backward");
  command->option_defaults()->always_capture_default();
  command->add_option("--kind", options->kind, "full, sliding or eva")
      ->check(CLI::IsMember(names_of<AttentionKind>()));
  command->add_option("--batch", options->batch, "sequences")->check(count);
  command->add_option("--heads", options->heads)->check(layer_size);
  command->add_option("--head-dim", options->head_dim)->check(layer_size);
  command->add_option("--tokens", options->tokens, "of a sequence")->check(count);
  command->add_option("--window", options->window)->check(count);
  command->add_option("--chunk", options->chunk)->check(count);
  command->add_option("--window-kind", options->window_kind)->check(CLI::IsMember(names_of<WindowKind>()));
  command->add_option("--precision", options->precision)->check(CLI::IsMember(names_of<Precision>()));
  command->add_option("--repeats", options->repeats, "timed runs; the median counts")->check(count);
  command->add_flag("--operations", options->operations, "also print how the time divides");
  command->add_option("--json", options->json, "also write the figures to this file");
  options->device.add_to(*command);
  command->callback([options] { bench_attention(*options); });
}

void add_decode(CLI::App& bench) {
  auto options = std::make_shared<BenchDecodeOptions>();
  CLI::App* command = bench.add_subcommand("decode", "Generation, a token of every sequence at a time");
  command->add_option("CONFIG", options->config, "YAML file; its data files are not opened")->required();
  command->add_option("OVERRIDES", options->overrides, "KEY=VALUE, e.g. model.attention.default=full");
  command->option_defaults()->always_capture_default();
  command->add_option("--context", options->context, "tokens of each sequence before the first new one")
      ->check(count);
  command->add_option("--new-tokens", options->new_tokens, "tokens generated after them")->check(count);
  command->add_option("--batch", options->batch, "sequences")->check(count);
  command->add_option("--precision", options->precision)->check(CLI::IsMember(names_of<Precision>()));
  command->add_option("--steps", options->steps, "timed, spread over the new tokens")->check(count);
  command->add_flag("--operations", options->operations, "also print where the time of a step goes");
  command->add_option("--json", options->json, "also write the figures to this file");
  options->device.add_to(*command);
  command->callback([options] { bench_decode(*options); });
}

}  // namespace

void add_bench(CLI::App& program) {
  CLI::App* bench = program.add_subcommand("bench", "Measure speed with synthetic tokens");
  bench->require_subcommand(1);
  add_step(*bench);
  add_attention(*bench);
  add_decode(*bench);
}

}  // namespace flasheva
