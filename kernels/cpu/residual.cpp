//     out = x + a + b      b optional; out may be x
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/loops.h"

namespace flasheva {

void CpuOps::residual(Tensor out, Tensor x, Tensor a, Tensor b) {
  FLASHEVA_CHECK(matches(out, x.dtype, x.shape) && matches(x, x.dtype, x.shape));
  FLASHEVA_CHECK(matches(a, x.dtype, x.shape));
  FLASHEVA_CHECK(!b || matches(b, x.dtype, x.shape));
  dispatch(x.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    T* sums = out.as<T>();
    const T *xs = x.as<T>(), *as = a.as<T>(), *bs = b.as<T>();
    parallel_elements(x.size(), [=](std::int64_t first, std::int64_t last) {
      if (bs) {
#pragma omp simd
        for (std::int64_t i = first; i < last; ++i)
          sums[i] = static_cast<T>(static_cast<A>(xs[i]) + static_cast<A>(as[i]) + static_cast<A>(bs[i]));
      } else {
#pragma omp simd
        for (std::int64_t i = first; i < last; ++i)
          sums[i] = static_cast<T>(static_cast<A>(xs[i]) + static_cast<A>(as[i]));
      }
    });
  });
}

}  // namespace flasheva
