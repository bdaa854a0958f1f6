// AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019), as PyTorch defines it:
//     g = gradient scale,  w -= lr wd w,  m = b1 m + (1-b1) g,  v = b2 v + (1-b2) g^2
//     w -= lr / (1-b1^t) m / (sqrt(v) / sqrt(1-b2^t) + eps)
// One pass reads the gradient, updates w, m and v in place, and writes the copy of w in 16 bits where there
// is one.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/adamw_contract.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/elementwise.h"

namespace flasheva {

namespace {

template <class T>
void update(T* weight, T* m, T* v, const T* gradient, std::int64_t size, T decay,
            const AdamWCoefficients<T>& c) {
#pragma omp simd
  for (std::int64_t i = 0; i < size; ++i) {
    const T g = gradient[i] * c.gradient_scale;
    m[i] = c.beta1 * m[i] + c.one_minus_beta1 * g;
    v[i] = c.beta2 * v[i] + c.one_minus_beta2 * g * g;
    const T denominator = std::sqrt(v[i]) * c.inverse_sqrt_correction2 + c.eps;
    weight[i] = decay * weight[i] - c.step_size * m[i] / denominator;
  }
}

// Parameters are updated in blocks: the new weights are rounded while they are in the nearest cache.
constexpr std::int64_t block_size = 1024;

template <class T>
void update_block(const AdamWParameter& p, std::int64_t first, T decay, const AdamWCoefficients<T>& c) {
  const std::int64_t size = std::min(block_size, p.weight.size() - first);
  T* weight = p.weight.as<T>() + first;
  update(weight, p.m.as<T>() + first, p.v.as<T>() + first, p.gradient.as<T>() + first, size, decay, c);
  if (p.low_precision)
    dispatch(p.low_precision.dtype,
             [&]<class Low>(Low) { convert_range(p.low_precision.as<Low>() + first, weight, size); });
}

// The threads share the blocks of all parameters, as most are too small for all threads.
template <class T>
void update_all(std::span<const AdamWParameter> parameters, const AdamWConfig& config) {
  std::vector<std::int64_t> ends;  // of each parameter's blocks among those of all
  std::int64_t blocks = 0;
  for (const AdamWParameter& p : parameters)
    ends.push_back(blocks += (p.weight.size() + block_size - 1) / block_size);
  const AdamWCoefficients<T> coefficients(config);
  parallel_rows(blocks, block_size, [&](std::int64_t first, std::int64_t last) {
    auto end = std::upper_bound(ends.begin(), ends.end(), first);
    for (std::int64_t block = first; block < last; ++end) {
      const AdamWParameter& p = parameters[static_cast<std::size_t>(end - ends.begin())];
      const std::int64_t begin = end == ends.begin() ? 0 : end[-1];
      for (; block < std::min(*end, last); ++block)
        update_block(p, (block - begin) * block_size, decay_factor<T>(p, config), coefficients);
    }
  });
}

}  // namespace

void CpuOps::adamw(std::span<const AdamWParameter> parameters, const AdamWConfig& config) {
  check_adamw(Device::cpu, parameters, config);
  if (parameters.empty()) return;
  dispatch_accumulator(parameters[0].weight.dtype, [&]<class T>(T) { update_all<T>(parameters, config); });
}

}  // namespace flasheva
