//     token_n = the first v with z_nv = max_u z_nu
// A block takes a row. A thread keeps the first of its own largest logits; of those that are the row's
// largest, the first wins.
#include <limits>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/most_likely_contract.h"

namespace flasheva {

namespace {

template <int threads, class T>
__global__ void __launch_bounds__(threads)
    most_likely_kernel(std::int32_t* tokens, const T* logits, std::int32_t vocabulary) {
  using A = Accumulator<T>;
  __shared__ A shared[threads / warp_size];
  __shared__ std::int32_t shared_places[threads / warp_size];
  const std::int64_t n = blockIdx.x;
  A own = -std::numeric_limits<A>::infinity();
  std::int32_t place = 0;  // of a row of -infinity
  bool nan = false;
  for_row<threads>(logits + n * vocabulary, vocabulary, [&](std::int32_t first, auto count) {
    const auto loaded = load_vector<count>(logits + n * vocabulary + first);
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const A z = widened(loaded.value[i]);
      nan |= !(z == z);
      if (z > own) {
        own = z;
        place = first + i;
      }
    }
  });
  const A maximum = block_max<threads>(own, shared);
  const std::int32_t candidate = nan ? -1 : own == maximum ? place : vocabulary;
  const std::int32_t token = -block_max<threads>(-candidate, shared_places);
  if (threadIdx.x == 0) tokens[n] = token;
}

}  // namespace

void CudaOps::most_likely(Tensor tokens, Tensor logits) {
  check_most_likely(Device::cuda, tokens, logits);
  dispatch(logits.dtype, [&]<class T>(T) {
    with_row_threads(logits.dim(1), [&](auto threads) {
      launch(stream_, most_likely_kernel<threads, T>, {logits.dim(0)}, threads, 0, tokens.as<std::int32_t>(),
             logits.as<T>(), logits.dim(1));
    });
  });
}

}  // namespace flasheva
