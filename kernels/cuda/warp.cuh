// Sums and maxima over the threads of a warp or block. Every thread gets the result, and it is the same on
// every run: the order of additions is fixed.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/launch.cuh"

namespace flasheva {

inline constexpr unsigned all_lanes = 0xffffffffu;

// Over groups of `width` lanes next to each other, a power of two.
template <int width = warp_size, class A>
__device__ inline A warp_sum(A x) {
#pragma unroll
  for (int mask = width / 2; mask > 0; mask /= 2) x += __shfl_xor_sync(all_lanes, x, mask);
  return x;
}

template <int width = warp_size, class A>
__device__ inline A warp_max(A x) {
#pragma unroll
  for (int mask = width / 2; mask > 0; mask /= 2) {
    const A other = __shfl_xor_sync(all_lanes, x, mask);
    x = other > x ? other : x;
  }
  return x;
}

// `shared` has room for one A a warp and may be used again after the next barrier of the caller. All threads
// of the block take part.
template <int threads, class A>
__device__ inline A block_sum(A x, A* shared) {
  constexpr int warps = threads / warp_size;
  x = warp_sum(x);
  if constexpr (warps == 1) return x;
  if (threadIdx.x % warp_size == 0) shared[threadIdx.x / warp_size] = x;
  __syncthreads();
  A sum = shared[0];
#pragma unroll
  for (int warp = 1; warp < warps; ++warp) sum += shared[warp];
  __syncthreads();
  return sum;
}

template <int threads, class A>
__device__ inline A block_max(A x, A* shared) {
  constexpr int warps = threads / warp_size;
  x = warp_max(x);
  if constexpr (warps == 1) return x;
  if (threadIdx.x % warp_size == 0) shared[threadIdx.x / warp_size] = x;
  __syncthreads();
  A largest = shared[0];
#pragma unroll
  for (int warp = 1; warp < warps; ++warp) largest = shared[warp] > largest ? shared[warp] : largest;
  __syncthreads();
  return largest;
}

}  // namespace flasheva
