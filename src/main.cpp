// flasheva: the subcommand table, and the one place that turns errors into a line and an exit code.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <string>
#include <vector>

#include "kernels/device_memory.h"
#include "src/commands/commands.h"
#include "src/core/error.h"
#include "src/core/log.h"
#include "src/core/text.h"

namespace {

using flasheva::ExitCode;

constexpr void (*commands[])(CLI::App&) = {
    flasheva::add_train,  flasheva::add_evaluate, flasheva::add_generate,
    flasheva::add_logits, flasheva::add_convert,  flasheva::add_data,
    flasheva::add_plan,   flasheva::add_bench,    flasheva::add_info,
};

// What makes a command take less memory.
std::string less_memory(const CLI::App& program) {
  const auto chosen = program.get_subcommands();
  const std::string command = chosen.empty() ? "" : chosen.front()->get_name();
  if (command == "train" || command == "plan")
    return "lower batch.micro or data.sequence_length (`flasheva plan` shows what is taken)";
  if (command == "generate") return "lower --batch or --max-length, or use --precision bf16";
  if (command == "evaluate") return "lower --sequence-length or use --precision bf16";
  if (command == "logits") return "give fewer or shorter sequences, or use --precision bf16";
  if (command == "bench") return "lower the sizes that it is given";
  return "end what else takes memory on this machine";
}

// Where the command's own flags are described: "flasheva data prepare --help".
std::string help_for(const CLI::App& program) {
  std::string words = "flasheva";
  for (auto chosen = program.get_subcommands(); !chosen.empty(); chosen = chosen.front()->get_subcommands())
    words += " " + chosen.front()->get_name();
  return words + " --help";
}

int report(const std::string& message, ExitCode code) {
  flasheva::log_error(message);
  return static_cast<int>(code);
}

// What was printed may still be in a buffer, and may have been lost when one was emptied.
void check_standard_output() {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  flasheva::fail(ExitCode::disk, "standard output: cannot write: {}",
                 std::strerror(errno == 0 ? EIO : errno));
}

// CLI11 says of a misspelt command only that one is required.
void check_command(const CLI::App& program, const std::vector<std::string>& words) {
  const CLI::App* app = &program;
  for (const std::string& word : words) {
    if (app->get_require_subcommand_min() == 0 || word.empty() || word[0] == '-') return;
    std::vector<std::string> names;
    for (const CLI::App* command : app->get_subcommands({})) names.push_back(command->get_name());
    if (std::find(names.begin(), names.end(), word) == names.end())
      flasheva::fail(ExitCode::usage, "no command '{}'; there are {}", flasheva::printable(word),
                     fmt::join(names, ", "));
    app = app->get_subcommand(word);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App program{"Turns a GPT-NeoX model into one with FlashEVA attention and fine-tunes it."};
  program.require_subcommand(1);
  for (const auto add : commands) add(program);
  try {
    check_command(program, {argv + 1, argv + argc});
    program.parse(argc, argv);
    check_standard_output();
    return static_cast<int>(ExitCode::done);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return program.exit(error);  // --help
    return report(fmt::format("{}; see {}", error.what(), help_for(program)), ExitCode::usage);
  } catch (const flasheva::Error& error) {
    return report(error.what(), error.code());
  } catch (const flasheva::OutOfMemory& error) {
    return report(fmt::format("{}; {}", error.what(), less_memory(program)), ExitCode::other);
  } catch (const std::filesystem::filesystem_error& error) {  // a path that cannot be looked at
    return report(fmt::format("{}: {}", error.path1().string(), error.code().message()), ExitCode::data);
  } catch (const std::bad_alloc&) {
    return report(fmt::format("out of memory; {}", less_memory(program)), ExitCode::other);
  } catch (const std::exception& error) {
    if (std::ferror(stdout) != 0)  // fmt's words for a print that failed
      return report(fmt::format("standard output: {}", error.what()), ExitCode::disk);
    return report(error.what(), ExitCode::other);
  }
}
