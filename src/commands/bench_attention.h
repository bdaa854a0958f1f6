// Times one attention layer's core (for eva with its chunk summaries), forward and backward, on random
// tensors.
#pragma once

#include <cstdint>
#include <string>

#include "src/commands/device_options.h"

namespace flasheva {

struct BenchAttentionOptions {
  std::string kind = "eva", window_kind = "block", precision = "fp32", json;
  std::int64_t batch = 1, heads = 8, head_dim = 64, tokens = 2048, window = 256, chunk = 16;
  int repeats = 7;
  bool operations = false;  // also print how the time divides, and measure the copy peak
  DeviceOptions device;
};

// Prints, and writes as JSON where asked: batch, tokens, milliseconds_forward, milliseconds_backward,
// flops_per_second (3.5 x 4 d for every visible pair of query and key), gemm_peak_flops_per_second,
// share_of_peak.
void bench_attention(const BenchAttentionOptions& options);

}  // namespace flasheva
