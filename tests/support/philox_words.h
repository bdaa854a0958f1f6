// Philox as a GPU computes it: what no operation shows, as its numbers have fewer bits.
#pragma once

#include "kernels/ops.h"

namespace flasheva {

// words (N, 4) int32 = the random words of the counters that they hold. `ops` is CUDA's.
void philox_on_gpu(Ops& ops, Tensor words, std::uint64_t seed);

}  // namespace flasheva
