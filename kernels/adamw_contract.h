// What AdamW wants of its arguments and makes of its settings, on any device.
#pragma once

#include <cmath>

#include "kernels/dispatch.h"
#include "kernels/ops.h"

namespace flasheva {

inline void check_adamw(Device device, const Tensor& weight, const Tensor& low_precision, const Tensor& m,
                        const Tensor& v, const Tensor& gradient, const AdamWConfig& config) {
  const auto is_as_large = [&](const Tensor& x, DType dtype) {
    return matches_on(device, x, dtype, x.shape) && x.size() == weight.size();
  };
  FLASHEVA_CHECK(weight.dtype == DType::f32 || weight.dtype == DType::f64);
  FLASHEVA_CHECK(is_as_large(weight, weight.dtype) && is_as_large(gradient, weight.dtype));
  FLASHEVA_CHECK(is_as_large(m, weight.dtype) && is_as_large(v, weight.dtype));
  FLASHEVA_CHECK(!low_precision ||
                 (is_low_precision(low_precision.dtype) && is_as_large(low_precision, low_precision.dtype)));
  FLASHEVA_CHECK(config.step >= 1);
}

// What a step needs of its config, in the type of the weights.
template <class T>
struct AdamWCoefficients {
  T decay, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, inverse_sqrt_correction2, eps,
      gradient_scale;

  explicit AdamWCoefficients(const AdamWConfig& config) {
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

}  // namespace flasheva
