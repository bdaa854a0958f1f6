#include "src/core/log.h"

#include <unistd.h>

#include <cstdio>

namespace flasheva {

namespace {
bool progress_on_screen = false;
bool silent = false;
}  // namespace

void silence_log() { silent = true; }

void log_line(const std::string& text) {
  if (silent) return;
  clear_progress();
  std::fprintf(stderr, "%s\n", text.c_str());
}

void log_warning(const std::string& text) { log_line("warning: " + text); }

void log_error(std::string text) {
  if (text.empty()) return;
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  clear_progress();
  std::fprintf(stderr, "flasheva: %s\n", text.c_str());
}

bool progress_is_visible() {
  static const bool terminal = ::isatty(STDERR_FILENO) == 1;
  return terminal && !silent;
}

void show_progress(const std::string& text) {
  if (!progress_is_visible()) return;
  std::fprintf(stderr, "\r\033[K%s", text.c_str());
  std::fflush(stderr);
  progress_on_screen = true;
}

void clear_progress() {
  if (!progress_on_screen) return;
  std::fprintf(stderr, "\r\033[K");
  progress_on_screen = false;
}

}  // namespace flasheva
