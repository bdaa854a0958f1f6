// Times generation with random weights over caches filled with random values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "src/commands/device_options.h"

namespace flasheva {

struct BenchDecodeOptions {
  std::string config, precision = "fp32", json;
  std::vector<std::string> overrides;
  std::int64_t context = 4096, new_tokens = 1024;  // tokens of each sequence before, and after them
  std::int64_t batch = 1;
  int steps = 16;           // timed, at positions spread over the new tokens
  bool operations = false;  // also print where the time of a step goes
  DeviceOptions device;
};

// Of the token that timed step `step` generates. It is about the middle of the step's share of the new
// tokens, moved by one from step to step: each place in a chunk has its turn, the last too, where a chunk is
// summarised.
inline std::int64_t timed_position(const BenchDecodeOptions& options, std::int64_t step) {
  const std::int64_t steps = options.steps,
                     turns = std::clamp<std::int64_t>(options.new_tokens / steps, 1, steps);
  const std::int64_t middle = (2 * step + 1) * options.new_tokens / (2 * steps);
  return options.context + middle + step % turns - turns / 2;
}

// Prints, and writes as JSON where asked: tokens_per_second (batch / mean time of a step, greedy choice
// included), cache_bytes, peak_memory_bytes of the process and, on a GPU, gpu_memory_bytes, and the limit of
// a step: the time of the weights' bytes or of the products, whichever is longer, plus that of the cache's
// bytes, at the machine's own peaks, measured in the same run.
void bench_decode(const BenchDecodeOptions& options);

}  // namespace flasheva
