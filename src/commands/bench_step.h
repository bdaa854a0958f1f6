// Times training steps of one phase with synthetic tokens.
#pragma once

#include <string>
#include <vector>

#include "src/commands/device_options.h"

namespace flasheva {

struct BenchStepOptions {
  std::string config, phase, json;
  std::vector<std::string> overrides;
  int steps = 5;
  bool operations = false;  // also print where the time of a step goes
  DeviceOptions device;
};

// Prints, and writes as JSON where asked: tokens_per_second, model_flops_per_second,
// gemm_peak_flops_per_second (the best of the step's own shapes and 4096^3 in the phase's precision, measured
// in the same run), share_of_peak.
void bench_step(const BenchStepOptions& options);

}  // namespace flasheva
