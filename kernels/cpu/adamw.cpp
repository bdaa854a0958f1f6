// AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019), as PyTorch defines it:
//     g = gradient scale,  w -= lr wd w,  m = b1 m + (1-b1) g,  v = b2 v + (1-b2) g^2
//     w -= lr / (1-b1^t) m / (sqrt(v) / sqrt(1-b2^t) + eps)
// One pass reads the gradient, updates w, m and v in place, and writes the bfloat16 copy of w where there is
// one.
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/loops.h"

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
void update(T* weight, bf16* low_precision, T* m, T* v, const T* gradient, std::int64_t size,
            const Coefficients<T> c) {
  parallel_elements(size, [=](std::int64_t first, std::int64_t last) {
    const auto update_element = [=](std::int64_t i) {
      const T g = gradient[i] * c.gradient_scale;
      m[i] = c.beta1 * m[i] + c.one_minus_beta1 * g;
      v[i] = c.beta2 * v[i] + c.one_minus_beta2 * g * g;
      const T denominator = std::sqrt(v[i]) * c.inverse_sqrt_correction2 + c.eps;
      return weight[i] = c.decay * weight[i] - c.step_size * m[i] / denominator;
    };
    if (low_precision) {
#pragma omp simd
      for (std::int64_t i = first; i < last; ++i)
        low_precision[i] = bf16(static_cast<float>(update_element(i)));
    } else {
#pragma omp simd
      for (std::int64_t i = first; i < last; ++i) update_element(i);
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
    update(weight.as<float>(), low_precision.as<bf16>(), m.as<float>(), v.as<float>(), gradient.as<float>(),
           weight.size(), Coefficients<float>(config));
  else
    update(weight.as<double>(), low_precision.as<bf16>(), m.as<double>(), v.as<double>(),
           gradient.as<double>(), weight.size(), Coefficients<double>(config));
}

}  // namespace flasheva
