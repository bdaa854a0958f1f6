// AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019), as PyTorch defines it:
//     g = gradient scale,  w -= lr wd w,  m = b1 m + (1-b1) g,  v = b2 v + (1-b2) g^2
//     w -= lr / (1-b1^t) m / (sqrt(v) / sqrt(1-b2^t) + eps)
// One pass reads the gradient, updates w, m and v in place, and writes the copy of w in 16 bits where there
// is one. One launch does so for as many tensors as a table holds.
#include <cmath>

#include "kernels/adamw_contract.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/tensor_table.cuh"

namespace flasheva {

namespace {

constexpr int threads = 256;

template <class T, class Low>
struct Update {
  T* weight;
  Low* low_precision;
  T *m, *v;
  const T* gradient;
  std::int64_t size;
  std::int64_t in_vectors;  // so many of the elements can be moved 16 bytes at once
  T decay;
};

// Updates `width` neighbours.
template <int width, class T, class Low>
__device__ inline void update(const Update<T, Low>& tensor, std::int64_t first,
                              const AdamWCoefficients<T>& c) {
  auto weights = load_vector<width>(tensor.weight + first), ms = load_vector<width>(tensor.m + first),
       vs = load_vector<width>(tensor.v + first);
  const auto gradients = load_vector<width>(tensor.gradient + first);
  Vector<Low, width> rounded;
#pragma unroll
  for (int i = 0; i < width; ++i) {
    const T g = gradients.value[i] * c.gradient_scale;
    // Of two products a compiler may fuse either; shards of a tensor must round as the whole does.
    ms.value[i] = std::fma(c.beta1, ms.value[i], c.one_minus_beta1 * g);
    vs.value[i] = std::fma(c.beta2, vs.value[i], c.one_minus_beta2 * g * g);
    const T denominator = sqrt(vs.value[i]) * c.inverse_sqrt_correction2 + c.eps;
    weights.value[i] = tensor.decay * weights.value[i] - c.step_size * ms.value[i] / denominator;
    rounded.value[i] = static_cast<Low>(static_cast<float>(weights.value[i]));
  }
  store_vector(tensor.weight + first, weights);
  store_vector(tensor.m + first, ms);
  store_vector(tensor.v + first, vs);
  if (tensor.low_precision) store_vector(tensor.low_precision + first, rounded);
}

// Of one tensor: four vectors a thread, so that the table is searched less often.
template <class T>
constexpr std::int64_t elements_a_block = vector_width<T> * 4 * threads;

template <class T, class Low>
__global__ void __launch_bounds__(threads)
    update_kernel(const TensorTable<Update<T, Low>> table, const AdamWCoefficients<T> c) {
  constexpr int width = vector_width<T>;
  const int block = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const int place = table.tensor_of(block);
  const Update<T, Low> tensor = table[place];
  const std::int64_t begin = (block - table.first_block(place)) * elements_a_block<T>;
  const std::int64_t end = min(begin + elements_a_block<T>, tensor.size);
  const std::int64_t vectors_end = min(end, tensor.in_vectors);
  for (std::int64_t i = begin + thread * width; i < vectors_end; i += threads * width)
    update<width>(tensor, i, c);
  for (std::int64_t i = max(begin, vectors_end) + thread; i < end; i += threads) update<1>(tensor, i, c);
}

template <class T, class Low>
Update<T, Low> update_of(const AdamWParameter& p, const AdamWConfig& config) {
  constexpr int width = vector_width<T>;
  const bool aligned = aligned_to(p.weight.data, 16) && aligned_to(p.m.data, 16) &&
                       aligned_to(p.v.data, 16) && aligned_to(p.gradient.data, 16) &&
                       aligned_to(p.low_precision.data, width * sizeof(Low));
  const std::int64_t size = p.weight.size();
  return {p.weight.as<T>(),
          p.low_precision ? p.low_precision.as<Low>() : nullptr,
          p.m.as<T>(),
          p.v.as<T>(),
          p.gradient.as<T>(),
          size,
          aligned ? size / width * width : 0,
          decay_factor<T>(p, config)};
}

template <class T, class Low>
void update_all(cudaStream_t stream, std::span<const AdamWParameter> parameters, const AdamWConfig& config) {
  for (std::size_t next = 0; next < parameters.size();) {
    TensorTable<Update<T, Low>> table;
    for (; next < parameters.size() && !table.full(); ++next)
      table.add(update_of<T, Low>(parameters[next], config),
                divide_up(parameters[next].weight.size(), elements_a_block<T>));
    launch(stream, update_kernel<T, Low>, {table.blocks()}, threads, 0, table, AdamWCoefficients<T>(config));
  }
}

}  // namespace

void CudaOps::adamw(std::span<const AdamWParameter> parameters, const AdamWConfig& config) {
  check_adamw(Device::cuda, parameters, config);
  if (parameters.empty()) return;
  const AdamWParameter& first = parameters[0];
  const auto update_with = [&]<class Low>(Low) {
    dispatch_accumulator(first.weight.dtype,
                         [&]<class T>(T) { update_all<T, Low>(stream_, parameters, config); });
  };
  if (first.low_precision && first.low_precision.dtype == DType::f16)
    update_with(f16{});
  else
    update_with(bf16{});
}

}  // namespace flasheva
