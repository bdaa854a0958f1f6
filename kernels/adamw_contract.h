// What AdamW wants of its arguments and makes of its settings, on any device.
#pragma once

#include <cmath>
#include <span>

#include "kernels/dispatch.h"
#include "kernels/ops.h"

namespace flasheva {

inline void check_adamw(Device device, std::span<const AdamWParameter> parameters,
                        const AdamWConfig& config) {
  FLASHEVA_CHECK(config.step >= 1);
  for (const AdamWParameter& p : parameters) {
    const auto is_as_large = [&](const Tensor& x, DType dtype) {
      return matches_on(device, x, dtype, x.shape) && x.size() == p.weight.size();
    };
    const DType type = parameters[0].weight.dtype;
    FLASHEVA_CHECK(type == DType::f32 || type == DType::f64);
    FLASHEVA_CHECK(is_as_large(p.weight, type) && is_as_large(p.gradient, type));
    FLASHEVA_CHECK(is_as_large(p.m, type) && is_as_large(p.v, type));
    const Tensor& first_copy = parameters[0].low_precision;
    FLASHEVA_CHECK(!p.low_precision == !first_copy);
    FLASHEVA_CHECK(!first_copy ||
                   (is_low_precision(first_copy.dtype) && is_as_large(p.low_precision, first_copy.dtype)));
  }
}

// What a parameter's weights are multiplied by first.
template <class T>
T decay_factor(const AdamWParameter& parameter, const AdamWConfig& config) {
  return static_cast<T>(1 - config.lr * parameter.weight_decay);
}

// What a step needs of its config, in the type of the weights.
template <class T>
struct AdamWCoefficients {
  T beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, inverse_sqrt_correction2, eps, gradient_scale;

  explicit AdamWCoefficients(const AdamWConfig& config) {
    const double correction1 = 1 - std::pow(config.beta1, static_cast<double>(config.step));
    const double correction2 = 1 - std::pow(config.beta2, static_cast<double>(config.step));
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
