// What the cores of attention do alike with a cache: plan it, and attend to it with a segment of a prompt.
#pragma once

#include "kernels/buffer.h"
#include "src/layers/activations.h"

namespace flasheva {

// Tokens first_position on of a cached sequence, taken together. Segments follow each other from position 0
// and all but the last end where a chunk does, so that no chunk is divided between two.
struct PromptSegment {
  std::int64_t sequence = 0;
  std::int64_t first_position = 0;
};

// Foresees a layer's cache for largest.sequences sequences of largest.tokens tokens at most.
void plan_layer_cache(MemoryPlan& plan, LayerCache& cache, const Visibility& visibility, std::int64_t heads,
                      std::int64_t head_dim, Extent largest, DType compute);

// One segment's tensors, of one sequence: q, k, v (1, H, T, d), kappa, beta (1, H, T / P, d) or absent.
struct SegmentTensors {
  Tensor out, log_sum_exp, q, k, v, kappa, beta, chunk_bias;
};

// out, log_sum_exp = attention of the segment to itself and to what is cached; the cache grows by it.
void attend_segment(const PassContext& pass, const SegmentTensors& at, const Workspace& work,
                    const LayerCache& cache, AttentionConfig config, const PromptSegment& segment);

}  // namespace flasheva
