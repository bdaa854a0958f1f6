// AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019), as PyTorch defines it:
//     g = gradient scale,  w -= lr wd w,  m = b1 m + (1-b1) g,  v = b2 v + (1-b2) g^2
//     w -= lr / (1-b1^t) m / (sqrt(v) / sqrt(1-b2^t) + eps)
// One pass reads the gradient, updates w, m and v in place, and writes the bfloat16 copy of w where there is
// one.
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/elementwise.h"

namespace flasheva {

namespace {

// What a step needs of its config, in the type of the weights.
template <class T>
struct Coefficients {
  T decay, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, inverse_sqrt_correction2, eps,
      gradient_scale;

  explicit Coefficients(const AdamWConfig& config) {
    const double correction1 = 1 - std::pow(config.beta1, static_cast<double>(config.step));
    const double correction2 = 1 - std::pow(config.beta2, static_cast<double>(config.step));
    decay = static_cast<T>(1 - config.lr * config.weight_decay);
    beta1 = static_cast<T>(config.beta1);
    one_minus_beta1 = static_cast<T>(1 - config.beta1);
    beta2 = static_cast<T>(config.beta2);
    one_minus_beta2 = static_cast<T>(1 - config.beta2);
    step_size = static_cast<T>(config.lr / correction1);
    inverse_sqrt_correction2 = static_cast<T>(1 / std::sqrt(correction2));
    eps = static_cast<T>(config.eps);
    gradient_scale = static_cast<T>(config.gradient_scale);
  }
};

template <class T>
void update(T* weight, T* m, T* v, const T* gradient, std::int64_t size, const Coefficients<T>& c) {
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
  const Coefficients<T> coefficients(config);
  parallel_elements(weight.size(), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; i += block_size) {
      const std::int64_t size = std::min(block_size, last - i);
      update(weight.as<T>() + i, m.as<T>() + i, v.as<T>() + i, gradient.as<T>() + i, size, coefficients);
      if (low_precision) convert_range(low_precision.as<bf16>() + i, weight.as<T>() + i, size);
    }
  });
}

}  // namespace

void CpuOps::adamw(Tensor weight, Tensor low_precision, Tensor m, Tensor v, Tensor gradient,
                   const AdamWConfig& config) {
  FLASHEVA_CHECK(weight.dtype == DType::f32 || weight.dtype == DType::f64);
  FLASHEVA_CHECK(matches(weight, weight.dtype, weight.shape));
  FLASHEVA_CHECK(matches(m, weight.dtype, m.shape) && m.size() == weight.size());
  FLASHEVA_CHECK(matches(v, weight.dtype, v.shape) && v.size() == weight.size());
  FLASHEVA_CHECK(matches(gradient, weight.dtype, gradient.shape) && gradient.size() == weight.size());
  FLASHEVA_CHECK(!low_precision || (matches(low_precision, DType::bf16, low_precision.shape) &&
                                    low_precision.size() == weight.size()));
  FLASHEVA_CHECK(config.step >= 1);
  if (weight.dtype == DType::f32)
    update_all<float>(weight, low_precision, m, v, gradient, config);
  else
    update_all<double>(weight, low_precision, m, v, gradient, config);
}

}  // namespace flasheva
