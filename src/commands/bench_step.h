// Times training steps of one phase with synthetic tokens.
#pragma once

#include <string>
#include <vector>

#include "src/commands/device_options.h"

namespace flasheva {

struct BenchStepOptions {
  std::string config, phase, json;
  std::string write_start;  // a folder, or empty
  std::vector<std::string> overrides;
  int steps = 5;
  bool operations = false;  // also print where the time of a step goes
  DeviceOptions device;
};

// Prints, and writes as JSON where asked: tokens_per_second, model_flops_per_second,
// gemm_peak_flops_per_second (the best of the step's own shapes and 4096^3 in the phase's precision, measured
// in the same run), share_of_peak, first_loss (before any update, nats a token).
// With `write_start` it measures nothing: it writes the weights of the first step as a model folder, and in
// it tokens.safetensors, `tokens` and `targets` (S, T) int32, so that another program can begin with the
// same.
void bench_step(const BenchStepOptions& options);

}  // namespace flasheva
