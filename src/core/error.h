// Errors a user can act on: one line that says what, where and what to do, and the exit code. Thrown
// anywhere, caught once in main.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace flasheva {

enum class ExitCode : int {
  done = 0,
  other = 1,
  usage = 2,      // command line or config
  data = 3,       // token files, model folders
  disk = 4,       // a file cannot be written
  peer_lost = 5,  // another rank died
  numeric = 6,    // non-finite loss or gradient
  preempted = 7,  // asked to stop; a checkpoint was saved
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

template <class... Args>
[[noreturn]] void fail(ExitCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace flasheva
