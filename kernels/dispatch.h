// The element type of a tensor as a template argument, for the operations of every device.
#pragma once

#include <stdexcept>

#include "kernels/check.h"
#include "kernels/tensor.h"

namespace flasheva {

// The type that sums over elements of type T have.
template <class T>
struct AccumulatorOf {
  using Type = float;
};
template <>
struct AccumulatorOf<double> {
  using Type = double;
};
template <class T>
using Accumulator = typename AccumulatorOf<T>::Type;

// float64 serves gradient checks, which the CPU and the simulator run: nvcc need not compile it too.
#ifdef __CUDACC__
template <class Body>
[[noreturn]] void dispatch_float64(const Body&) {
  throw std::logic_error("float64 is not built for GPUs; use the CPU");
}
#else
template <class Body>
void dispatch_float64(const Body& body) {
  body(double{});
}
#endif

// Calls body(T{}) for the element type T of a tensor: dispatch(x.dtype, [&]<class T>(T) { ... x.as<T>() ...
// }).
template <class Body>
void dispatch(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f32:
      return body(float{});
    case DType::bf16:
      return body(bf16{});
    case DType::f16:
      return body(f16{});
    case DType::f64:
      return dispatch_float64(body);
    default:
      FLASHEVA_CHECK(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16 ||
                     dtype == DType::f64);
  }
}

// The same for a tensor of an accumulator's type.
template <class Body>
void dispatch_accumulator(DType dtype, const Body& body) {
  FLASHEVA_CHECK(dtype == DType::f32 || dtype == DType::f64);
  if (dtype == DType::f64) return dispatch_float64(body);
  body(float{});
}

// True for a present tensor in memory of `device`, of this type and shape.
inline bool matches_on(Device device, const Tensor& tensor, DType dtype, const Shape& shape) {
  return tensor && tensor.device == device && tensor.dtype == dtype && tensor.shape == shape;
}

}  // namespace flasheva
