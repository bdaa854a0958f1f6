// Memory and conversion: copy, zero, cast, and the normal numbers that new weights start from.
#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/philox.h"

namespace flasheva {

void CpuOps::copy(Tensor out, Tensor in) {
  FLASHEVA_CHECK(matches(in, in.dtype, in.shape) && matches(out, in.dtype, in.shape));
  parallel_elements(static_cast<std::int64_t>(out.bytes()), [=](std::int64_t first, std::int64_t last) {
    std::memcpy(static_cast<std::byte*>(out.data) + first, static_cast<const std::byte*>(in.data) + first,
                static_cast<std::size_t>(last - first));
  });
}

void CpuOps::zero(Tensor out) {
  FLASHEVA_CHECK(matches(out, out.dtype, out.shape));
  parallel_elements(static_cast<std::int64_t>(out.bytes()), [=](std::int64_t first, std::int64_t last) {
    std::memset(static_cast<std::byte*>(out.data) + first, 0, static_cast<std::size_t>(last - first));
  });
}

void CpuOps::cast(Tensor out, Tensor in) {
  FLASHEVA_CHECK(matches(in, in.dtype, in.shape));
  FLASHEVA_CHECK(matches(out, out.dtype, in.shape));
  dispatch(out.dtype, [&]<class Out>(Out) {
    dispatch(in.dtype, [&]<class In>(In) { convert(out.as<Out>(), in.as<In>(), in.size()); });
  });
}

void CpuOps::fill_normal(Tensor out, double standard_deviation, std::uint64_t seed, std::uint32_t stream) {
  FLASHEVA_CHECK(matches(out, out.dtype, out.shape));
  dispatch_accumulator(out.dtype, [=]<class T>(T) {
    T* elements = out.as<T>();
    parallel_elements(out.size(), [=](std::int64_t first, std::int64_t last) {  // first is a multiple of four
      for (std::int64_t i = first; i < last; i += 4) {
        const FourNormals normals = stream_normals(seed, stream, static_cast<std::uint64_t>(i / 4));
        for (std::int64_t j = i; j < std::min(i + 4, last); ++j)
          elements[j] = static_cast<T>(standard_deviation * normals.value[j - i]);
      }
    });
  });
}

}  // namespace flasheva
