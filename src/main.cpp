// flasheva: the subcommand table, and the one place that turns errors into a line and an exit code.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <new>

#include "src/commands/commands.h"
#include "src/core/error.h"

namespace {

using flasheva::ExitCode;

constexpr void (*commands[])(CLI::App&) = {
    flasheva::add_train,  flasheva::add_evaluate, flasheva::add_generate,
    flasheva::add_logits, flasheva::add_convert,  flasheva::add_data,
    flasheva::add_plan,   flasheva::add_bench,    flasheva::add_info,
};

int report(const char* message, ExitCode code) {
  std::fprintf(stderr, "flasheva: %s\n", message);
  return static_cast<int>(code);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App program{"Turns a GPT-NeoX model into one with FlashEVA attention and fine-tunes it."};
  program.require_subcommand(1);
  for (const auto add : commands) add(program);
  try {
    program.parse(argc, argv);
    return static_cast<int>(ExitCode::done);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return program.exit(error);  // --help
    return report(fmt::format("{}; see flasheva --help", error.what()).c_str(), ExitCode::usage);
  } catch (const flasheva::Error& error) {
    return report(error.what(), error.code());
  } catch (const std::bad_alloc&) {
    return report(
        "out of memory; lower batch.micro or data.sequence_length (`flasheva plan` shows what is taken)",
        ExitCode::other);
  } catch (const std::exception& error) {
    return report(error.what(), ExitCode::other);
  }
}
