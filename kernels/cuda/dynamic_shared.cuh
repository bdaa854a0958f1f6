// The dynamic shared memory of a block, aligned for bulk copies.
#pragma once

#include <cstddef>

namespace flasheva {

__device__ inline std::byte* dynamic_shared() {
  extern __shared__ __align__(128) std::byte memory[];
  return memory;
}

}  // namespace flasheva
