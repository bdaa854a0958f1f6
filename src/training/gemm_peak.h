// The speed of this machine's matrix products, measured: what shares of the limit are shares of.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"

namespace flasheva {

// One product out (rows, columns) = x (rows, inner) weight (columns, inner)^T.
struct GemmShape {
  std::int64_t rows, columns, inner;
};

// The best FLOP/s of the linear layer over the shapes, each run for at least `seconds`.
double measure_gemm_peak(Ops& ops, DType compute, const std::vector<GemmShape>& shapes, double seconds);

}  // namespace flasheva
