// flasheva data prepare | inspect.
#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "src/commands/commands.h"
#include "src/io/prepare.h"

namespace flasheva {

namespace {

void add_prepare(CLI::App& data) {
  struct Options {
    std::vector<std::string> inputs;
    std::string tokenizer = "bytes", output;
    double validation = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = data.add_subcommand("prepare", "Text or JSONL to an HDF5 token file");
  command->add_option("--input", options->inputs, "text files, or .jsonl with a `text` a line")->required();
  command->add_option("--tokenizer", options->tokenizer, "`bytes`, or a folder with a tokenizer.json");
  command->add_option("--output", options->output, "NAME.h5")->required();
  command->add_option("--validation", options->validation, "this last fraction goes to NAME-validation.h5")
      ->check(CLI::Range(0.0, 0.99));
  command->callback([options] {
    const auto tokenizer = make_tokenizer(options->tokenizer);
    PrepareOptions prepare;
    prepare.inputs.assign(options->inputs.begin(), options->inputs.end());
    prepare.output = options->output;
    prepare.validation = options->validation;
    const PrepareSummary summary = prepare_tokens(prepare, *tokenizer);
    const auto print = [](const PreparedFile& file) {
      fmt::print("{}: {} tokens, {} documents\n", file.path.string(), file.tokens, file.documents);
    };
    print(summary.train);
    if (summary.validation) print(*summary.validation);
  });
}

void add_inspect(CLI::App& data) {
  auto path = std::make_shared<std::string>();
  CLI::App* command = data.add_subcommand("inspect", "Check a token file and describe it");
  command->add_option("FILE", *path, "HDF5 token file")->required();
  command->callback([path] { fmt::print("{}\n", inspect_token_file(*path)); });
}

}  // namespace

void add_data(CLI::App& program) {
  CLI::App* data = program.add_subcommand("data", "Prepare and inspect token files");
  data->require_subcommand(1);
  add_prepare(*data);
  add_inspect(*data);
}

}  // namespace flasheva
