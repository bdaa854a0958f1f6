// Token ids as indices.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace flasheva {

// The token; 0 where it is not in 0 .. vocabulary - 1, and then *bad_token becomes 1, for which
// CudaOps::synchronize() throws.
__device__ inline std::int32_t valid_token(std::int32_t token, std::int64_t vocabulary, int* bad_token) {
  if (token >= 0 && token < vocabulary) return token;
  atomicExch(bad_token, 1);
  return 0;
}

}  // namespace flasheva
