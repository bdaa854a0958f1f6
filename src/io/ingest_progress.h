// How far the making of a token file has come, on standard error: one line that overwrites itself where that
// is a terminal, else a line every 30 seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace flasheva {

// Of the inputs, compressed as they may be, and what became of them.
struct IngestCount {
  std::int64_t bytes = 0, tokens = 0;
};

// "read 1.5 GiB of 20.0 GiB (7.5 %), 400000000 tokens, 1200000 tokens/s, 64 min left": with the speed since
// `start`, which was so many seconds ago.
std::string text_of_progress(std::int64_t total_bytes, const IngestCount& start, const IngestCount& now,
                             double seconds);

class IngestProgress {
 public:
  explicit IngestProgress(std::int64_t total_bytes) : total_bytes_(total_bytes) {}
  ~IngestProgress();

  // The first call starts the clock: what an earlier run did is not in the speed.
  void show_read(const IngestCount& now);
  // "writing data/pile.h5: 7.5 %"
  void show_written(const std::string& path, std::int64_t tokens, std::int64_t total_tokens);

 private:
  using Clock = std::chrono::steady_clock;
  bool is_due();

  std::int64_t total_bytes_;
  std::optional<IngestCount> start_count_;
  Clock::time_point start_ = Clock::now(), last_shown_ = start_;
};

}  // namespace flasheva
