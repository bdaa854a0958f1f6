// What a person sees on a terminal.
#include "src/core/log.h"

#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

namespace flasheva {
namespace {

TEST(Log, LinesTakeThePlaceOfProgress) {
  int terminal = -1;
  const pid_t child = ::forkpty(&terminal, nullptr, nullptr, nullptr);
  ASSERT_GE(child, 0);
  if (child == 0) {
    show_progress("half way");
    log_line("a line");
    show_progress("nearly");
    log_error("no disk");
    ::_exit(0);
  }
  std::string shown;
  for (char c = 0; ::read(terminal, &c, 1) == 1;) shown += c;
  ::waitpid(child, nullptr, 0);
  ::close(terminal);
  EXPECT_EQ(shown, "\r\033[Khalf way\r\033[Ka line\r\n\r\033[Knearly\r\033[Kflasheva: no disk\r\n");
}

}  // namespace
}  // namespace flasheva
