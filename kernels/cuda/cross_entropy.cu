//     forward   loss_n = log sum_v exp(z_nv) - z_n,target
//     backward  dz_nv = (exp(z_nv - log sum exp z_n) - [v = target]) scale, over z in place
// A block takes a row and reads it once for the maximum and the sum of exponentials together; the backward
// pass reads it again, from the second-level cache, and writes the gradient.
#include <limits>

#include "kernels/cross_entropy_contract.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/token.cuh"
#include "kernels/cuda/warp.cuh"

namespace flasheva {

namespace {

template <class A>
struct SoftmaxStatistics {
  A maximum = std::numeric_limits<A>::lowest();
  A sum = 0;  // of exp(z - maximum)

  // Takes in `count` logits at once.
  template <int count>
  __device__ void add(const A (&z)[count]) {
    A larger = maximum;
#pragma unroll
    for (int i = 0; i < count; ++i) larger = z[i] > larger ? z[i] : larger;
    if (larger > maximum) sum *= exp(maximum - larger);
    maximum = larger;
#pragma unroll
    for (int i = 0; i < count; ++i) sum += exp(z[i] - maximum);
  }
};

// What both passes want to know of a row.
template <class T>
struct Row {
  using A = Accumulator<T>;
  T* logits;
  std::int32_t target;
  A target_logit;
  SoftmaxStatistics<A> statistics;
  bool target_is_largest;

  __device__ A loss() const { return statistics.maximum + log(statistics.sum) - target_logit; }
};

// Reads the row; all threads of the block take part.
template <int threads, class T>
__device__ inline Row<T> read_row(T* logits, std::int32_t vocabulary, std::int32_t target) {
  using A = Accumulator<T>;
  __shared__ A shared[threads / warp_size];
  __shared__ int shared_flags[threads / warp_size];
  const A target_logit = widened(logits[target]);
  SoftmaxStatistics<A> own;
  bool beaten = !(target_logit == target_logit);
  for_row<threads>(logits, vocabulary, [&](std::int32_t first, auto count) {
    const auto loaded = load_vector<count>(logits + first);
    A z[count];
#pragma unroll
    for (int i = 0; i < count; ++i) {
      z[i] = widened(loaded.value[i]);
      beaten |= z[i] > target_logit || (z[i] == target_logit && first + i < target);
    }
    own.add(z);
  });
  const A maximum = block_max<threads>(own.maximum, shared);
  const A sum = block_sum<threads>(own.sum * exp(own.maximum - maximum), shared);
  const bool largest = block_max<threads>(static_cast<int>(beaten), shared_flags) == 0;
  return {logits, target, target_logit, {maximum, sum}, largest};
}

template <int threads, class T>
__global__ void __launch_bounds__(threads)
    forward_kernel(Accumulator<T>* losses, std::uint8_t* correct, T* logits, const std::int32_t* targets,
                   const std::uint8_t* mask, std::int32_t vocabulary, int* bad_token) {
  const std::int64_t n = blockIdx.x;
  const std::int32_t target = valid_token(targets[n], vocabulary, bad_token);
  const bool counts = !mask || mask[n] != 0;
  Row<T> row{};
  if (counts) row = read_row<threads>(logits + n * vocabulary, vocabulary, target);
  if (threadIdx.x > 0) return;
  losses[n] = counts ? row.loss() : 0;
  if (correct) correct[n] = counts && row.target_is_largest;
}

template <int threads, class T>
__global__ void __launch_bounds__(threads)
    backward_kernel(T* logits, Accumulator<T>* losses, const std::int32_t* targets, const std::uint8_t* mask,
                    std::int32_t vocabulary, const Accumulator<T>* scale_of_losses, int* bad_token) {
  using A = Accumulator<T>;
  const A scale = *scale_of_losses;
  const std::int64_t n = blockIdx.x;
  T* logits_n = logits + n * vocabulary;
  const std::int32_t target = valid_token(targets[n], vocabulary, bad_token);
  const bool counts = !mask || mask[n] != 0;
  Row<T> row{};
  if (counts) row = read_row<threads>(logits_n, vocabulary, target);
  const A maximum = row.statistics.maximum, factor = scale / row.statistics.sum;
  const A target_gradient = (exp(row.target_logit - maximum) / row.statistics.sum - 1) * scale;
  for_row<threads>(logits_n, vocabulary, [&](std::int32_t first, auto count) {
    const auto z = load_vector<count>(logits_n + first);
    Vector<T, count> gradient;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const A of_logit = exp(widened(z.value[i]) - maximum) * factor;
      gradient.value[i] = static_cast<T>(!counts ? A{0} : first + i == target ? target_gradient : of_logit);
    }
    store_vector(logits_n + first, gradient);
  });
  if (threadIdx.x == 0) losses[n] = counts ? row.loss() : 0;
}

}  // namespace

void CudaOps::cross_entropy_forward(Tensor losses, Tensor correct, Tensor logits, Tensor targets,
                                    Tensor mask) {
  check_cross_entropy(Device::cuda, losses, logits, targets, mask);
  FLASHEVA_CHECK(!correct || matches_on_gpu(correct, DType::u8, losses.shape));
  dispatch(logits.dtype, [&]<class T>(T) {
    with_row_threads(logits.dim(1), [&](auto threads) {
      launch(stream_, forward_kernel<threads, T>, {logits.dim(0)}, threads, 0, losses.as<Accumulator<T>>(),
             correct.as<std::uint8_t>(), logits.as<T>(), targets.as<std::int32_t>(), mask.as<std::uint8_t>(),
             logits.dim(1), bad_token_);
    });
  });
}

void CudaOps::cross_entropy_backward(Tensor logits, Tensor losses, Tensor targets, Tensor mask,
                                     Tensor scale) {
  check_cross_entropy_backward(Device::cuda, logits, losses, targets, mask, scale);
  dispatch(logits.dtype, [&]<class T>(T) {
    with_row_threads(logits.dim(1), [&](auto threads) {
      launch(stream_, backward_kernel<threads, T>, {logits.dim(0)}, threads, 0, logits.as<T>(),
             losses.as<Accumulator<T>>(), targets.as<std::int32_t>(), mask.as<std::uint8_t>(), logits.dim(1),
             scale.as<Accumulator<T>>(), bad_token_);
    });
  });
}

}  // namespace flasheva
