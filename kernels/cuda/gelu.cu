//     forward   out = x Phi(x)
//     backward  dx = dout (Phi(x) + x phi(x)),  dbias += column sums of dx
// Phi and phi are the normal distribution's cumulative function and density: x Phi(x) = x/2 (1 + erf(x/sqrt
// 2)), the exact GELU.
#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/fast_math.cuh"
#include "kernels/gelu_contract.h"

namespace flasheva {

namespace {

template <class A>
struct Normal {
  A cumulative, density;
};

// Phi(-a) = exp(-a^2/2) P(t): the fit of cpu/gelu.cpp, one exponential for both. erff and expf apart would
// take longer than the bytes, and so would an exact division, whose branch takes elements one by one. With
// the error of both functions Phi stays within 7 * 2^-24, and relatively within 1e-5 down to x = -13.
__device__ inline Normal<float> normal(float x) {
  const float exponential = fast_exp2(x * x * -0.72134752f);  // exp(-x^2 / 2)
  const float t = fast_reciprocal(1.0f + 0.2975f * fabsf(x));
  float p = 0.0378654739f;  // by Horner's rule: each coefficient is part of its instruction
  p = p * t - 0.170976717f;
  p = p * t + 0.23807809f;
  p = p * t - 0.0824857768f;
  p = p * t + 0.143997082f;
  p = p * t + 0.0944059638f;
  p = p * t + 0.120536547f;
  p = p * t + 0.118579342f;
  const float tail = exponential * t * p;
  return {x < 0.0f ? tail : 1.0f - tail, exponential * 0.39894228f};  // 1 / sqrt(2 pi)
}

[[maybe_unused]] __device__ inline Normal<double> normal(double x) {  // in the simulator
  return {erfc(-x * 0.70710678118654752) / 2, exp(-x * x / 2) * 0.39894228040143268};
}

struct Gelu {
  template <class A>
  __device__ A operator()(A x) const {
    return x * normal(x).cumulative;
  }
};

// The terms of dbias: stores dx on the way.
template <class T>
struct GeluGradients {
  using A = Accumulator<T>;
  static constexpr int widest = vector_width<T>, rows_at_once = 1;
  T* dx;
  const T *dout, *x;

  bool aligned(std::int64_t columns) const { return rows_are_aligned<widest>(columns, dx, dout, x); }
  template <int width>
  __device__ Vector<A, width> at(std::int64_t i) const {
    auto gradient = load_vector<width>(dout + i);
    const auto loaded = load_vector<width>(x + i);
    Vector<A, width> terms;
#pragma unroll
    for (int j = 0; j < width; ++j) {
      const A x_j = widened(loaded.value[j]);
      const auto [cumulative, density] = normal(x_j);
      gradient.value[j] = static_cast<T>(widened(gradient.value[j]) * (x_j * density + cumulative));
      terms.value[j] = widened(gradient.value[j]);
    }
    store_whole(dx + i, gradient);
    return terms;
  }
};

}  // namespace

void CudaOps::gelu_forward(Tensor out, Tensor x) {
  FLASHEVA_CHECK(matches_on_gpu(x, x.dtype, x.shape) && matches_on_gpu(out, x.dtype, x.shape));
  dispatch(x.dtype,
           [&]<class T>(T) { map_elements<Gelu, T, T>(stream_, out.as<T>(), x.size(), {}, x.as<T>()); });
}

void CudaOps::gelu_backward(Tensor dx, Tensor dbias, Tensor dout, Tensor x) {
  check_gelu_gradients(Device::cuda, dx, dbias, dout, x);
  dispatch(x.dtype, [&]<class T>(T) {
    add_column_sums(stream_, scratch_, multiprocessors_, dbias.as<Accumulator<T>>(),
                    GeluGradients<T>{dx.as<T>(), dout.as<T>(), x.as<T>()}, x.dim(0), x.dim(1));
  });
}

}  // namespace flasheva
