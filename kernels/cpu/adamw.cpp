// AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019), as PyTorch defines it:
//     g = gradient scale,  w -= lr wd w,  m = b1 m + (1-b1) g,  v = b2 v + (1-b2) g^2
//     w -= lr / (1-b1^t) m / (sqrt(v) / sqrt(1-b2^t) + eps)
// One pass reads the gradient, updates w, m and v in place, and writes the copy of w in 16 bits where there
// is one.
#include <cmath>

#include "kernels/adamw_contract.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/elementwise.h"

namespace flasheva {

namespace {

template <class T>
void update(T* weight, T* m, T* v, const T* gradient, std::int64_t size, const AdamWCoefficients<T>& c) {
#pragma omp simd
  for (std::int64_t i = 0; i < size; ++i) {
    const T g = gradient[i] * c.gradient_scale;
    m[i] = c.beta1 * m[i] + c.one_minus_beta1 * g;
    v[i] = c.beta2 * v[i] + c.one_minus_beta2 * g * g;
    const T denominator = std::sqrt(v[i]) * c.inverse_sqrt_correction2 + c.eps;
    weight[i] = c.decay * weight[i] - c.step_size * m[i] / denominator;
  }
}

// One pass over memory: a block's new weights are rounded while they are in the nearest cache.
template <class T>
void update_all(const Tensor& weight, const Tensor& low_precision, const Tensor& m, const Tensor& v,
                const Tensor& gradient, const AdamWConfig& config) {
  constexpr std::int64_t block_size = 1024;
  const AdamWCoefficients<T> coefficients(config);
  parallel_elements(weight.size(), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; i += block_size) {
      const std::int64_t size = std::min(block_size, last - i);
      update(weight.as<T>() + i, m.as<T>() + i, v.as<T>() + i, gradient.as<T>() + i, size, coefficients);
      if (low_precision)
        dispatch(low_precision.dtype, [&]<class Low>(Low) {
          convert_range(low_precision.as<Low>() + i, weight.as<T>() + i, size);
        });
    }
  });
}

}  // namespace

void CpuOps::adamw(Tensor weight, Tensor low_precision, Tensor m, Tensor v, Tensor gradient,
                   const AdamWConfig& config) {
  check_adamw(Device::cpu, weight, low_precision, m, v, gradient, config);
  dispatch_accumulator(weight.dtype,
                       [&]<class T>(T) { update_all<T>(weight, low_precision, m, v, gradient, config); });
}

}  // namespace flasheva
