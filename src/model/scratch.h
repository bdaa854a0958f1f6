// The scratch memory that operations take while they run, planned like all other memory and lent to them
// (Ops::lend_scratch). It is measured by the layouts that the operations cut it by
// (kernels/cuda/scratch_layouts.h, kernels/cpu/scratch_sizes.h). Each function foresees in `scratch` the most
// that any operation takes; on the CPU, where each thread has its own, with as many threads as there are now.
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

// Of a training step or a validation, of micro batches up to largest.sequences sequences of largest.tokens
// tokens.
void plan_training_scratch(MemoryPlan& plan, ScratchMemory& scratch, const PlannedDevice& device,
                           const ModelConfig& config, Extent largest, DType compute);

// Of losses of batches up to `largest`. On the CPU products of other sizes, and in 16 bits the logits of many
// tokens at once, may take more, which they then take themselves.
void plan_forward_scratch(MemoryPlan& plan, ScratchMemory& scratch, const PlannedDevice& device,
                          const ModelConfig& config, Extent largest, DType compute);

// Of generation with caches of cached.sequences sequences of up to cached.tokens tokens, prompts in segments
// of up to `segment` tokens; with the same reserve.
void plan_generation_scratch(MemoryPlan& plan, ScratchMemory& scratch, const PlannedDevice& device,
                             const ModelConfig& config, Extent cached, std::int64_t segment, DType compute);

}  // namespace flasheva
