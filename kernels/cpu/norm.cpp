//     sum of squares of all elements, and of the differences of two tensors, in float64
// Blocks of a fixed size are summed by themselves and then in order: the same result on any number of
// threads.
#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/scratch_sizes.h"
#include "kernels/cpu/simd.h"

namespace flasheva {

namespace {

using simd::Doubles;

Doubles load_as_doubles(const double* x) { return simd::load(x); }
Doubles load_as_doubles(const float* x) {
  typedef float HalfVector __attribute__((vector_size(simd::vector_bytes / 2)));
  HalfVector values;
  std::memcpy(&values, x, sizeof(values));
  return __builtin_convertvector(values, Doubles);
}

template <class T>
double element(T x) {
  return static_cast<double>(static_cast<Accumulator<T>>(x));
}

template <class T>
requires(sizeof(T) == 2) double sum_of_block(const T* x, std::int64_t size) {
  double sum = 0;
  for (std::int64_t i = 0; i < size; ++i) sum += element(x[i]) * element(x[i]);
  return sum;
}

template <class T>
double sum_of_block(const T* x, std::int64_t size) {
  constexpr std::int64_t lanes = simd::lanes<double>;
  Doubles sums[4] = {};  // side by side, so that additions overlap
  std::int64_t i = 0;
  for (; i + 4 * lanes <= size; i += 4 * lanes)
    for (int j = 0; j < 4; ++j) {
      const Doubles values = load_as_doubles(x + i + j * lanes);
      sums[j] += values * values;
    }
  double sum = simd::sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < size; ++i) sum += element(x[i]) * element(x[i]);
  return sum;
}

template <class T>
double distance_of_block(const T* x, const T* y, std::int64_t size) {
  double sum = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    const double difference = element(x[i]) - element(y[i]);
    sum += difference * difference;
  }
  return sum;
}

constexpr std::int64_t block_size = 16384;

struct BlockSums {
  std::int64_t blocks;
  double* partials;  // (blocks)

  BlockSums(Carver& carver, std::int64_t size)
      : blocks((size + block_size - 1) / block_size), partials(carver.take<double>(blocks)) {}
};

// The sum over elements 0 .. size - 1 of block_sum(first, count), called for blocks of them.
template <class BlockSum>
double sum_of_blocks(CpuScratch& scratch, std::int64_t size, const BlockSum& block_sum) {
  const auto sums = scratch.shared<BlockSums>(size);
  const std::int64_t blocks = sums.blocks;
  double* const partials = sums.partials;
  parallel_rows(blocks, block_size, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t block = first; block < last; ++block) {
      const std::int64_t begin = block * block_size;
      partials[block] = block_sum(begin, std::min(block_size, size - begin));
    }
  });
  double sum = 0;
  for (std::int64_t block = 0; block < blocks; ++block) sum += partials[block];
  return sum;
}

}  // namespace

ScratchBytes squares_scratch(std::int64_t elements) { return {bytes_of_layout<BlockSums>(elements), 0}; }

void CpuOps::sums_of_squares(std::span<double> sums, std::span<const Tensor> tensors) {
  FLASHEVA_CHECK(sums.size() == tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& x = tensors[i];
    FLASHEVA_CHECK(matches(x, x.dtype, x.shape));
    dispatch(x.dtype, [&]<class T>(T) {
      const T* elements = x.as<T>();
      sums[i] = sum_of_blocks(scratch_, x.size(), [=](std::int64_t first, std::int64_t count) {
        return sum_of_block(elements + first, count);
      });
    });
  }
}

double CpuOps::squared_distance(Tensor x, Tensor y) {
  FLASHEVA_CHECK(matches(x, x.dtype, x.shape) && matches(y, x.dtype, x.shape));
  double sum = 0;
  dispatch(x.dtype, [&]<class T>(T) {
    const T *a = x.as<T>(), *b = y.as<T>();
    sum = sum_of_blocks(scratch_, x.size(), [=](std::int64_t first, std::int64_t count) {
      return distance_of_block(a + first, b + first, count);
    });
  });
  return sum;
}

}  // namespace flasheva
