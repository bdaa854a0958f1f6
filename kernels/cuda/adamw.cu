// AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019), as PyTorch defines it:
//     g = gradient scale,  w -= lr wd w,  m = b1 m + (1-b1) g,  v = b2 v + (1-b2) g^2
//     w -= lr / (1-b1^t) m / (sqrt(v) / sqrt(1-b2^t) + eps)
// One pass reads the gradient, updates w, m and v in place, and writes the copy of w in 16 bits where there
// is one.
#include <cmath>

#include "kernels/adamw_contract.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/elementwise.cuh"

namespace flasheva {

namespace {

// A thread updates `width` neighbours.
template <int width, class T, class Low>
__global__ void __launch_bounds__(256)
    update_kernel(T* weight, Low* low_precision, T* m, T* v, const T* gradient, std::int64_t size,
                  AdamWCoefficients<T> c) {
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x) * width;
  if (first >= size) return;
  auto weights = load_vector<width>(weight + first), ms = load_vector<width>(m + first),
       vs = load_vector<width>(v + first);
  const auto gradients = load_vector<width>(gradient + first);
  Vector<Low, width> rounded;
#pragma unroll
  for (int i = 0; i < width; ++i) {
    const T g = gradients.value[i] * c.gradient_scale;
    // Of two products a compiler may fuse either; shards of a tensor must round as the whole does.
    ms.value[i] = std::fma(c.beta1, ms.value[i], c.one_minus_beta1 * g);
    vs.value[i] = std::fma(c.beta2, vs.value[i], c.one_minus_beta2 * g * g);
    const T denominator = sqrt(vs.value[i]) * c.inverse_sqrt_correction2 + c.eps;
    weights.value[i] = c.decay * weights.value[i] - c.step_size * ms.value[i] / denominator;
    rounded.value[i] = static_cast<Low>(static_cast<float>(weights.value[i]));
  }
  store_vector(weight + first, weights);
  store_vector(m + first, ms);
  store_vector(v + first, vs);
  if (low_precision) store_vector(low_precision + first, rounded);
}

template <class T, class Low>
void update(cudaStream_t stream, const Tensor& weight, const Tensor& low_precision, const Tensor& m,
            const Tensor& v, const Tensor& gradient, const AdamWConfig& config) {
  const auto start = [&]<int width>(std::integral_constant<int, width>, std::int64_t first,
                                    std::int64_t size) {
    launch(stream, update_kernel<width, T, Low>, {divide_up(size, 256 * width)}, 256, 0,
           weight.as<T>() + first, low_precision ? low_precision.as<Low>() + first : nullptr,
           m.as<T>() + first, v.as<T>() + first, gradient.as<T>() + first, size,
           AdamWCoefficients<T>(config));
  };
  constexpr int width = vector_width<T>;
  const std::int64_t size = weight.size();
  const bool aligned = aligned_to(weight.data, 16) && aligned_to(m.data, 16) && aligned_to(v.data, 16) &&
                       aligned_to(gradient.data, 16) && aligned_to(low_precision.data, width * sizeof(Low));
  const std::int64_t in_vectors = aligned ? size / width * width : 0;
  start(std::integral_constant<int, width>{}, 0, in_vectors);
  start(std::integral_constant<int, 1>{}, in_vectors, size - in_vectors);
}

}  // namespace

void CudaOps::adamw(Tensor weight, Tensor low_precision, Tensor m, Tensor v, Tensor gradient,
                    const AdamWConfig& config) {
  check_adamw(Device::cuda, weight, low_precision, m, v, gradient, config);
  const auto update_with = [&]<class Low>(Low) {
    dispatch_accumulator(weight.dtype, [&]<class T>(T) {
      update<T, Low>(stream_, weight, low_precision, m, v, gradient, config);
    });
  };
  if (low_precision && low_precision.dtype == DType::f16)
    update_with(f16{});
  else
    update_with(bf16{});
}

}  // namespace flasheva
