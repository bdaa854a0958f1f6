// flasheva data prepare | import-megatron | inspect.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "src/commands/commands.h"
#include "src/commands/number_checks.h"
#include "src/core/file.h"
#include "src/io/megatron.h"
#include "src/io/prepare.h"

namespace flasheva {

namespace {

namespace fs = std::filesystem;

void print(const PreparedFiles& files) {
  const auto print_file = [](const PreparedFile& file) {
    fmt::print("{}: {} tokens, {} documents\n", file.path.string(), file.tokens, file.documents);
  };
  print_file(files.train);
  if (files.validation) print_file(*files.validation);
}

void add_output_options(CLI::App& command, std::string& output, double& validation, bool& fresh) {
  command.add_option("--output", output, "NAME.h5")->required();
  command.add_option("--validation", validation, "this last fraction goes to NAME-validation.h5")
      ->check(number_that_is(from_zero_below_one));
  command.add_flag("--fresh", fresh, "start anew; replace what is there");
}

struct PrepareArguments {
  std::vector<std::string> inputs;
  std::string tokenizer = "bytes", output;
  PrepareOptions options;
};

void run_prepare(const PrepareArguments& arguments) {
  const auto tokenizer = make_tokenizer(arguments.tokenizer);
  PrepareOptions options = arguments.options;
  options.inputs.assign(arguments.inputs.begin(), arguments.inputs.end());
  options.output = arguments.output;
  const fs::path definition = fs::path(arguments.tokenizer) / "tokenizer.json";
  if (fs::exists(definition)) options.tokenizer_id = checksum_of_file(definition);
  print(prepare_tokens(options, *tokenizer));
}

void add_prepare(CLI::App& data) {
  auto arguments = std::make_shared<PrepareArguments>();
  PrepareOptions& options = arguments->options;
  CLI::App* command =
      data.add_subcommand("prepare", "Text or JSONL to an HDF5 token file; goes on where it was killed");
  command->add_option("--input", arguments->inputs, "text files, or .jsonl; also as .gz and .zst")
      ->required();
  command->option_defaults()->always_capture_default();
  command->add_option("--tokenizer", arguments->tokenizer, "`bytes`, or a folder with a tokenizer.json");
  add_output_options(*command, arguments->output, options.validation, options.fresh);
  command->add_option("--text-key", options.text_key, "name of the text in a line of .jsonl");
  command->add_option("--threads", options.threads, "threads that tokenize; 0: all cores")
      ->check(integer_from(0, most_threads));
  command->callback([arguments] { run_prepare(*arguments); });
}

struct ImportArguments {
  std::vector<std::string> inputs;
  std::string tokenizer, output;
  MegatronImport import;
};

void run_import(const ImportArguments& arguments) {
  MegatronImport import = arguments.import;
  import.inputs.assign(arguments.inputs.begin(), arguments.inputs.end());
  import.output = arguments.output;
  if (!arguments.tokenizer.empty()) describe_tokenizer(*make_tokenizer(arguments.tokenizer), import);
  const MegatronSummary summary = import_megatron(import);
  print(summary.files);
  if (summary.eos_added > 0)
    fmt::print("{} documents did not end with token {} and got one\n", summary.eos_added,
               *import.eos_token_id);
}

void add_import(CLI::App& data) {
  auto arguments = std::make_shared<ImportArguments>();
  MegatronImport& import = arguments->import;
  CLI::App* command =
      data.add_subcommand("import-megatron", "Megatron-LM .bin and .idx to an HDF5 token file");
  command->add_option("--input", arguments->inputs, "prefixes PREFIX of PREFIX.bin and PREFIX.idx")
      ->required();
  add_output_options(*command, arguments->output, import.validation, import.fresh);
  command->add_option("--vocab-size", import.vocab_size, "every id must be below it")
      ->required()
      ->check(integer_from(1, max_integer));
  command
      ->add_option("--eos-token-id", import.eos_token_id,
                   "ends every document that does not end with it already")
      ->check(integer_from(0, max_integer));
  command->add_option("--tokenizer", arguments->tokenizer,
                      "`bytes` or a folder: names it, and gives its EOS");
  command->add_flag("--packed", import.packed, "documents are packed sequences: none gets an EOS");
  command->callback([arguments] { run_import(*arguments); });
}

void add_inspect(CLI::App& data) {
  auto path = std::make_shared<std::string>();
  CLI::App* command = data.add_subcommand("inspect", "Check a token file and describe it");
  command->add_option("FILE", *path, "HDF5 token file")->required();
  command->callback([path] { fmt::print("{}\n", inspect_token_file(*path)); });
}

}  // namespace

void add_data(CLI::App& program) {
  CLI::App* data = program.add_subcommand("data", "Prepare, import and inspect token files");
  data->require_subcommand(1);
  add_prepare(*data);
  add_import(*data);
  add_inspect(*data);
}

}  // namespace flasheva
