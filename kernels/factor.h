// A factor of a matrix product.
#pragma once

#include "kernels/dispatch.h"

namespace flasheva {

// A matrix as stored, or its transpose.
struct Factor {
  Tensor matrix;
  bool transposed = false;

  std::int64_t rows() const { return matrix.dim(transposed ? 1 : 0); }
  std::int64_t columns() const { return matrix.dim(transposed ? 0 : 1); }
};

inline Factor transpose(Tensor matrix) { return {matrix, true}; }

// Throws unless out (M, N), of `out_type`, = or += a (M, K) b (K, N) + bias (N, optional) is a product of
// tensors on `device`.
inline void check_product(Device device, const Tensor& out, DType out_type, const Factor& a, const Factor& b,
                          const Tensor& bias) {
  const DType dtype = a.matrix.dtype;
  const auto is_matrix = [&](const Tensor& x) {
    return x.shape.rank() == 2 && matches_on(device, x, dtype, x.shape);
  };
  FLASHEVA_CHECK(is_matrix(a.matrix) && is_matrix(b.matrix));
  FLASHEVA_CHECK(a.columns() == b.rows());
  FLASHEVA_CHECK(matches_on(device, out, out_type, {a.rows(), b.columns()}));
  FLASHEVA_CHECK(!bias || matches_on(device, bias, dtype, {b.columns()}));
}

}  // namespace flasheva
