// out[i] = function(in[i] ...) over contiguous elements; function is an object whose operator() takes and
// gives accumulators. Threads move 16 bytes at once where every pointer is aligned to them.
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/vector.cuh"

namespace flasheva {

template <int width, class Function, class Out, class... In>
__global__ void __launch_bounds__(256)
    map_kernel(Out* out, std::int64_t size, Function function, const In*... in) {
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x) * width;
  if (first + width <= size) {
    const auto apply = [&](const Vector<In, width>&... loaded) {
      Vector<Out, width> result;
#pragma unroll
      for (int i = 0; i < width; ++i)
        result.value[i] = static_cast<Out>(function(widened(loaded.value[i])...));
      store_vector(out + first, result);
    };
    apply(load_vector<width>(in + first)...);
    return;
  }
  for (std::int64_t i = first; i < size; ++i) out[i] = static_cast<Out>(function(widened(in[i])...));
}

inline bool aligned_to(const void* pointer, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

// out may be any of the inputs.
template <class Function, class Out, class... In>
void map_elements(cudaStream_t stream, Out* out, std::int64_t size, Function function, const In*... in) {
  constexpr std::size_t widest = std::max({sizeof(Out), sizeof(In)...});
  constexpr int width = static_cast<int>(16 / widest);
  constexpr int threads = 256;
  if (aligned_to(out, width * sizeof(Out)) && (aligned_to(in, width * sizeof(In)) && ...))
    launch(stream, map_kernel<width, Function, Out, In...>, {divide_up(size, threads * width)}, threads, 0,
           out, size, function, in...);
  else
    launch(stream, map_kernel<1, Function, Out, In...>, {divide_up(size, threads)}, threads, 0, out, size,
           function, in...);
}

}  // namespace flasheva
