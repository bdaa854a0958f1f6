#include "src/io/ingest_progress.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/core/duration.h"
#include "src/core/log.h"
#include "src/core/text.h"

namespace flasheva {

namespace {

constexpr std::chrono::milliseconds terminal_interval(200);
constexpr std::chrono::seconds log_interval(30);

double percent(std::int64_t part, std::int64_t whole) {
  return whole > 0 ? 100 * static_cast<double>(part) / static_cast<double>(whole) : 100;
}

void show(const std::string& text) {
  if (progress_is_visible())
    show_progress(text);
  else
    log_line(text);
}

}  // namespace

std::string text_of_progress(std::int64_t total_bytes, const IngestCount& start, const IngestCount& now,
                             double seconds) {
  const auto size = [](std::int64_t count) { return format_bytes(static_cast<std::size_t>(count)); };
  std::string text = fmt::format("read {} of {} ({:.1f} %), {} tokens", size(now.bytes), size(total_bytes),
                                 percent(now.bytes, total_bytes), now.tokens);
  const auto bytes = static_cast<double>(now.bytes - start.bytes);
  if (bytes <= 0 || seconds <= 0) return text;
  return text + fmt::format(", {:.0f} tokens/s, {} left",
                            static_cast<double>(now.tokens - start.tokens) / seconds,
                            format_duration(static_cast<double>(total_bytes - now.bytes) / bytes * seconds));
}

IngestProgress::~IngestProgress() { clear_progress(); }

bool IngestProgress::is_due() {
  const Clock::duration interval = progress_is_visible() ? Clock::duration(terminal_interval) : log_interval;
  if (Clock::now() - last_shown_ < interval) return false;
  last_shown_ = Clock::now();
  return true;
}

void IngestProgress::show_read(const IngestCount& now) {
  if (!start_count_) {
    start_count_ = now;
    start_ = Clock::now();
  }
  if (!is_due()) return;
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  show(text_of_progress(total_bytes_, *start_count_, now, seconds));
}

void IngestProgress::show_written(const std::string& path, std::int64_t tokens, std::int64_t total_tokens) {
  if (is_due()) show(fmt::format("writing {}: {:.1f} %", path, percent(tokens, total_tokens)));
}

}  // namespace flasheva
