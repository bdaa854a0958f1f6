// Memory and conversion: copy, zero, cast, and the normal numbers that new weights start from.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/philox.h"

namespace flasheva {

namespace {

// float64 reaches bfloat16 and float16 by way of float32.
template <class A>
struct Converted {
  template <class In>
  __device__ A operator()(In x) const {
    return static_cast<A>(x);
  }
};

template <class T>
__global__ void fill_normal_kernel(T* out, std::int64_t size, double standard_deviation, std::uint64_t seed,
                                   std::uint32_t stream) {
  const std::int64_t four = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (four * 4 >= size) return;
  const FourNormals normals = stream_normals(seed, stream, static_cast<std::uint64_t>(four));
  for (int j = 0; j < 4 && four * 4 + j < size; ++j)
    out[four * 4 + j] = static_cast<T>(standard_deviation * normals.value[j]);
}

}  // namespace

void CudaOps::copy(Tensor out, Tensor in) {
  start_copy(out, in);
  if (out.device == Device::cpu || in.device == Device::cpu) synchronize();
}

void CudaOps::start_copy(Tensor out, Tensor in) {
  FLASHEVA_CHECK(in && out && in.dtype == out.dtype && in.shape == out.shape);
  FLASHEVA_CUDA(cudaMemcpyAsync(out.data, in.data, in.bytes(), cudaMemcpyDefault, stream_));
}

void CudaOps::zero(Tensor out) {
  FLASHEVA_CHECK(matches_on_gpu(out, out.dtype, out.shape));
  FLASHEVA_CUDA(cudaMemsetAsync(out.data, 0, out.bytes(), stream_));
}

void CudaOps::cast(Tensor out, Tensor in) {
  FLASHEVA_CHECK(matches_on_gpu(in, in.dtype, in.shape));
  FLASHEVA_CHECK(matches_on_gpu(out, out.dtype, in.shape));
  dispatch(out.dtype, [&]<class Out>(Out) {
    dispatch(in.dtype, [&]<class In>(In) {
      map_elements(stream_, out.as<Out>(), in.size(), Converted<Accumulator<Out>>{},
                   static_cast<const In*>(in.as<In>()));
    });
  });
}

void CudaOps::fill_normal(Tensor out, double standard_deviation, std::uint64_t seed, std::uint32_t stream) {
  FLASHEVA_CHECK(matches_on_gpu(out, out.dtype, out.shape));
  constexpr int threads = 256;
  const Grid grid{divide_up(out.size(), 4 * threads)};
  dispatch_accumulator(out.dtype, [&]<class T>(T) {
    launch(stream_, fill_normal_kernel<T>, grid, threads, 0, out.as<T>(), out.size(), standard_deviation,
           seed, stream);
  });
}

}  // namespace flasheva
