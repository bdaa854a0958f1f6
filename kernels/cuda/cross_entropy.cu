//     forward   loss_n = log sum_v exp(z_nv) - z_n,target
//     backward  dz_nv = (exp(z_nv - log sum exp z_n) - [v = target]) scale, over z in place
// A block takes a row and reads it once for the maximum and the sum of exponentials together; the backward
// pass reads it again, from the second-level cache, and writes the gradient. Both have few instructions an
// element, as they are to wait for memory alone: which of equal logits is the first is asked once a vector.
#include <limits>
#include <numbers>
#include <type_traits>

#include "kernels/cross_entropy_contract.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/fast_math.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/token.cuh"
#include "kernels/cuda/warp.cuh"

namespace flasheva {

namespace {

// e^x for x <= 0. In float32 with an error of 2^-24 |x| beside that of fast_exp2.
template <class A>
__device__ inline A fast_exp(A x) {
  if constexpr (std::is_same_v<A, float>)
    return fast_exp2(x * std::numbers::log2e_v<float>);
  else
    return exp(x);
}

// Of the logits that a thread has seen, first to last.
template <class A>
struct SoftmaxStatistics {
  A maximum = std::numeric_limits<A>::lowest();
  A sum = 0;               // of exp(z - maximum)
  std::int32_t place = 0;  // of the first vector that has the maximum

  // Takes in `count` logits at once, from `first` on.
  template <int count>
  __device__ void add(const A (&z)[count], std::int32_t first) {
    A larger = maximum;
#pragma unroll
    for (int i = 0; i < count; ++i) larger = max(larger, z[i]);  // as if NaN were not there
    if (larger > maximum) {
      sum *= fast_exp(maximum - larger);
      maximum = larger;
      place = first;
    }
#pragma unroll
    for (int i = 0; i < count; ++i) sum += fast_exp(z[i] - maximum);
  }
};

// What both passes want to know of a row.
template <class A>
struct Row {
  A target_logit, maximum, sum;
  std::int32_t place;  // of the thread's first vector that has the maximum; the vocabulary's end without one

  __device__ A loss() const { return maximum + log(sum) - target_logit; }
};

// Reads the row; all threads of the block take part.
template <int threads, class T, class A = Accumulator<T>>
__device__ inline Row<A> read_row(const T* logits, std::int32_t vocabulary, std::int32_t target) {
  __shared__ A shared[threads / warp_size];
  const A target_logit = widened(logits[target]);
  SoftmaxStatistics<A> own;
  for_row<threads>(logits, vocabulary, [&](std::int32_t first, auto count) {
    const auto loaded = load_vector<count>(logits + first);
    A z[count];
#pragma unroll
    for (int i = 0; i < count; ++i) z[i] = widened(loaded.value[i]);
    own.add(z, first);
  });
  const A maximum = block_max<threads>(own.maximum, shared);
  const A sum = block_sum<threads>(own.sum * fast_exp(own.maximum - maximum), shared);
  return {target_logit, maximum, sum, own.maximum == maximum ? own.place : vocabulary};
}

// Whether the target is the first of the largest logits; all threads of the block take part.
template <int threads, class T, class A = Accumulator<T>>
__device__ inline bool target_is_largest(const Row<A>& row, const T* logits, std::int32_t target) {
  __shared__ std::int32_t shared[threads / warp_size];
  std::int32_t place = -block_max<threads>(-row.place, shared);
  if (!(row.target_logit == row.maximum)) return false;
  while (place < target && widened(logits[place]) != row.target_logit) ++place;  // within one vector
  return place == target;
}

template <int threads, class T>
__global__ void __launch_bounds__(threads)
    forward_kernel(Accumulator<T>* losses, std::uint8_t* correct, const T* logits,
                   const std::int32_t* targets, const std::uint8_t* mask, std::int32_t vocabulary,
                   int* bad_token) {
  const std::int64_t n = blockIdx.x;
  const T* logits_n = logits + n * vocabulary;
  const std::int32_t target = valid_token(targets[n], vocabulary, bad_token);
  Accumulator<T> loss = 0;
  bool is_largest = false;
  if (!mask || mask[n] != 0) {
    const auto row = read_row<threads>(logits_n, vocabulary, target);
    loss = row.loss();
    if (correct) is_largest = target_is_largest<threads>(row, logits_n, target);
  }
  if (threadIdx.x > 0) return;
  losses[n] = loss;
  if (correct) correct[n] = is_largest;
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
  if (mask && mask[n] == 0) {
    for_row<threads>(logits_n, vocabulary, [&](std::int32_t first, auto count) {
      store_vector(logits_n + first, Vector<T, count>{});
    });
    if (threadIdx.x == 0) losses[n] = 0;
    return;
  }
  const Row<A> row = read_row<threads>(logits_n, vocabulary, target);
  const A factor = scale / row.sum;
  for_row<threads>(logits_n, vocabulary, [&](std::int32_t first, auto count) {
    const auto z = load_vector<count>(logits_n + first);
    Vector<T, count> gradient;
#pragma unroll
    for (int i = 0; i < count; ++i)
      gradient.value[i] = static_cast<T>(fast_exp(widened(z.value[i]) - row.maximum) * factor);
    store_vector(logits_n + first, gradient);
  });
  __syncthreads();  // the target's gradient goes over what stands there
  if (threadIdx.x > 0) return;
  logits_n[target] = static_cast<T>((fast_exp(row.target_logit - row.maximum) / row.sum - 1) * scale);
  losses[n] = row.loss();
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
