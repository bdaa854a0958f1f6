//     sum of squares of all elements, in float64
// Blocks of a fixed size are summed by themselves and then in order: the same result on any number of
// threads.
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/loops.h"

namespace flasheva {

double CpuOps::sum_of_squares(Tensor x) {
  FLASHEVA_CHECK(matches(x, x.dtype, x.shape));
  FLASHEVA_CHECK(x.dtype == DType::f32 || x.dtype == DType::f64);
  constexpr std::int64_t block_size = 16384;
  const std::int64_t size = x.size(), blocks = (size + block_size - 1) / block_size;
  double* partials = partials_.take<double>(blocks);
  const auto sum_blocks = [=]<class T>(const T* elements) {
    parallel_rows(blocks, block_size, [=](std::int64_t first, std::int64_t last) {
      for (std::int64_t block = first; block < last; ++block) {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t i = block * block_size; i < std::min((block + 1) * block_size, size); ++i)
          sum += static_cast<double>(elements[i]) * static_cast<double>(elements[i]);
        partials[block] = sum;
      }
    });
  };
  if (x.dtype == DType::f32)
    sum_blocks(x.as<float>());
  else
    sum_blocks(x.as<double>());
  double sum = 0;
  for (std::int64_t block = 0; block < blocks; ++block) sum += partials[block];
  return sum;
}

}  // namespace flasheva
