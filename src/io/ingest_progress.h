// How far the making of a token file has come, on standard error: one line that overwrites itself where that
// is a terminal, else a line every 30 seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace flasheva {

class IngestProgress {
 public:
  using Clock = std::chrono::steady_clock;

  // `done_before`, `tokens_before`: of an earlier run, which do not count in the speed.
  IngestProgress(std::int64_t total_bytes, std::int64_t bytes_before, std::int64_t tokens_before)
      : total_bytes_(total_bytes), bytes_before_(bytes_before), tokens_before_(tokens_before) {}

  // "read 1.5 GiB of 20.0 GiB (7.5 %), 400000000 tokens, 1200000 tokens/s, 1 h 04 min left"
  void show_read(std::int64_t bytes, std::int64_t tokens);
  // "writing data/pile.h5: 7.5 %"
  void show_written(const std::string& path, std::int64_t tokens, std::int64_t total_tokens);

  // The text of show_read after so many seconds.
  std::string text_of_read(std::int64_t bytes, std::int64_t tokens, double seconds) const;

 private:
  bool is_due();
  void show(const std::string& text);

  std::int64_t total_bytes_, bytes_before_, tokens_before_;
  Clock::time_point start_ = Clock::now(), last_ = start_;
};

}  // namespace flasheva
