// Stands for kernels/cuda/gemm.cu: plain products.
#include "kernels/cuda/gemm.h"

#include "kernels/cuda/launch.cuh"

namespace flasheva {

namespace {

template <class T>
Accumulator<T> element(const Factor& factor, std::int64_t row, std::int64_t column) {
  const std::int64_t i = factor.transposed ? column * factor.rows() + row : row * factor.columns() + column;
  return static_cast<Accumulator<T>>(factor.matrix.as<T>()[i]);
}

template <class T, class Out>
void product(const Tensor& out, const Factor& a, const Factor& b, const Tensor& bias, bool accumulate) {
  using A = Accumulator<T>;
  for (std::int64_t m = 0; m < out.dim(0); ++m)
    for (std::int64_t n = 0; n < out.dim(1); ++n) {
      A sum = bias ? static_cast<A>(bias.as<T>()[n]) : A{0};
      for (std::int64_t k = 0; k < a.columns(); ++k) sum += element<T>(a, m, k) * element<T>(b, k, n);
      Out& result = out.as<Out>()[m * out.dim(1) + n];
      result = static_cast<Out>(accumulate ? static_cast<A>(result) + sum : sum);
    }
}

}  // namespace

class CudaGemm::Library {};
CudaGemm::CudaGemm(cudaStream_t) {}
CudaGemm::~CudaGemm() = default;

void CudaGemm::multiply(Tensor out, Factor a, Factor b, Tensor bias) {
  const simulator::Access access;
  check_product(Device::cuda, out, a.matrix.dtype, a, b, bias);
  dispatch(out.dtype, [&]<class T>(T) { product<T, T>(out, a, b, bias, false); });
}

void CudaGemm::multiply_add(Tensor out, Factor a, Factor b) {
  const simulator::Access access;
  check_product(Device::cuda, out, accumulation_type(a.matrix.dtype), a, b, {});
  dispatch(a.matrix.dtype, [&]<class T>(T) { product<T, Accumulator<T>>(out, a, b, {}, true); });
}

}  // namespace flasheva
