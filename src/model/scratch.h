// The scratch memory that operations of a GPU take while they run (kernels/cuda/scratch_layouts.h), planned
// like all other memory and lent to them (Ops::lend_scratch).
#pragma once

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "src/config/model_config.h"
#include "src/layers/activations.h"

namespace flasheva {

// What memory is planned for.
struct PlannedDevice {
  Device kind;
  int multiprocessors = 132;  // of a GPU: where there is none at hand, those of an H100 or H200

  PlannedDevice(Device device) : kind(device) {}
  PlannedDevice(const Ops& ops) : kind(ops.device()), multiprocessors(ops.multiprocessors()) {}
};

// Foresees in `scratch` what any operation of a training step or a validation takes at most, of micro batches
// up to largest.sequences sequences of largest.tokens tokens. Absent on the CPU.
void plan_training_scratch(MemoryPlan& plan, Tensor& scratch, const PlannedDevice& device,
                           const ModelConfig& config, Extent largest, DType compute);

// The same of forward passes and of generation, with caches of cached.sequences sequences of up to
// cached.tokens tokens.
void plan_inference_scratch(MemoryPlan& plan, Tensor& scratch, const PlannedDevice& device,
                            const ModelConfig& config, Extent cached, DType compute);

}  // namespace flasheva
