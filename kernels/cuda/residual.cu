//     out = x + a + b      b optional; out may be x
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/elementwise.cuh"

namespace flasheva {

namespace {

struct Sum {
  template <class A>
  __device__ A operator()(A x, A a) const {
    return x + a;
  }
  template <class A>
  __device__ A operator()(A x, A a, A b) const {
    return x + a + b;
  }
};

}  // namespace

void CudaOps::residual(Tensor out, Tensor x, Tensor a, Tensor b) {
  FLASHEVA_CHECK(matches_on_gpu(out, x.dtype, x.shape) && matches_on_gpu(x, x.dtype, x.shape));
  FLASHEVA_CHECK(matches_on_gpu(a, x.dtype, x.shape));
  FLASHEVA_CHECK(!b || matches_on_gpu(b, x.dtype, x.shape));
  dispatch(x.dtype, [&]<class T>(T) {
    if (b)
      map_elements<Sum, T, T, T, T>(stream_, out.as<T>(), x.size(), {}, x.as<T>(), a.as<T>(), b.as<T>());
    else
      map_elements<Sum, T, T, T>(stream_, out.as<T>(), x.size(), {}, x.as<T>(), a.as<T>());
  });
}

}  // namespace flasheva
