//     first = min { i : an element of x_i is not finite }, -1 where there is none in the last x
#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/not_finite_contract.h"

namespace flasheva {

void CpuOps::first_not_finite(Tensor first, std::span<const Tensor> tensors) {
  check_first_not_finite(Device::cpu, first, tensors);
  const auto not_finite = [&](const Tensor& x) { return !std::isfinite(sum_of_squares(x)); };
  std::int32_t place = -1;
  if (not_finite(tensors.back()))
    place =
        static_cast<std::int32_t>(std::find_if(tensors.begin(), tensors.end(), not_finite) - tensors.begin());
  *first.as<std::int32_t>() = place;
}

}  // namespace flasheva
