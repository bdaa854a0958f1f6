//     out = x + a + b      b optional; out may be x
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/elementwise.h"

namespace flasheva {

void CpuOps::residual(Tensor out, Tensor x, Tensor a, Tensor b) {
  FLASHEVA_CHECK(matches(out, x.dtype, x.shape) && matches(x, x.dtype, x.shape));
  FLASHEVA_CHECK(matches(a, x.dtype, x.shape));
  FLASHEVA_CHECK(!b || matches(b, x.dtype, x.shape));
  dispatch(x.dtype, [&]<class T>(T) {
    parallel_elements(x.size(), [=](std::int64_t first, std::int64_t last) {
      const auto sum_of_two = [](auto x_i, auto a_i) { return x_i + a_i; };
      const auto sum_of_three = [](auto x_i, auto a_i, auto b_i) { return x_i + a_i + b_i; };
      if (b)
        map(out.as<T>(), first, last, sum_of_three, x.as<T>(), a.as<T>(), b.as<T>());
      else
        map(out.as<T>(), first, last, sum_of_two, x.as<T>(), a.as<T>());
    });
  });
}

}  // namespace flasheva
