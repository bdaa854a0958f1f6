// The subcommands: each adds itself, with its flags and what it does, to the program's command line.
#pragma once

#include <CLI/CLI.hpp>

namespace flasheva {

void add_train(CLI::App& program);
void add_evaluate(CLI::App& program);
void add_generate(CLI::App& program);
void add_logits(CLI::App& program);
void add_convert(CLI::App& program);
void add_data(CLI::App& program);
void add_plan(CLI::App& program);
void add_bench(CLI::App& program);
void add_info(CLI::App& program);

}  // namespace flasheva
