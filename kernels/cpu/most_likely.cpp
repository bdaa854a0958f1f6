//     token_n = the first v with z_nv = max_u z_nu
#include <algorithm>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/simd.h"
#include "kernels/most_likely_contract.h"

namespace flasheva {

namespace {

// The largest of x; NaN where there is one.
template <class T>
Accumulator<T> maximum_or_nan(const T* x, std::int64_t size) {
  using A = Accumulator<T>;
  constexpr std::int64_t lanes = simd::lanes<A>;
  const simd::Vector<A> lowest = simd::broadcast(-std::numeric_limits<A>::infinity());
  simd::Vector<A> maxima[4] = {lowest, lowest, lowest, lowest};
  simd::Mask<A> nan[4] = {};
  const auto add = [&](int j, simd::Vector<A> z) {
    maxima[j] = simd::max(z, maxima[j]);
    nan[j] |= z != z;
  };
  std::int64_t i = 0;
  for (; i + 4 * lanes <= size; i += 4 * lanes)
    for (int j = 0; j < 4; ++j) add(j, simd::load(x + i + j * lanes));
  for (; i < size; i += lanes) {
    const auto rest = simd::load_first(x + i, std::min(lanes, size - i));
    add(0, simd::select(simd::first_lanes<A>(size - i), rest, lowest));
  }
  if (simd::any((nan[0] | nan[1]) | (nan[2] | nan[3]))) return std::numeric_limits<A>::quiet_NaN();
  return simd::maximum(simd::max(simd::max(maxima[0], maxima[1]), simd::max(maxima[2], maxima[3])));
}

// One pass over memory for the first block that has the maximum, which is then looked for in that block.
template <class T>
std::int32_t most_likely_of(const T* logits, std::int64_t vocabulary) {
  using A = Accumulator<T>;
  constexpr std::int64_t block_size = 512;
  A maximum = -std::numeric_limits<A>::infinity();
  std::int64_t place = 0;
  for (std::int64_t block = 0; block < vocabulary; block += block_size) {
    const A of_block = maximum_or_nan(logits + block, std::min(block_size, vocabulary - block));
    if (of_block != of_block) return -1;
    if (of_block > maximum) {
      maximum = of_block;
      place = block;
    }
  }
  while (static_cast<A>(logits[place]) != maximum) ++place;
  return static_cast<std::int32_t>(place);
}

}  // namespace

void CpuOps::most_likely(Tensor tokens, Tensor logits) {
  check_most_likely(Device::cpu, tokens, logits);
  const std::int64_t vocabulary = logits.dim(1);
  dispatch(logits.dtype, [&]<class T>(T) {
    parallel_rows(logits.dim(0), vocabulary, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t n = first; n < last; ++n)
        tokens.as<std::int32_t>()[n] = most_likely_of(logits.as<T>() + n * vocabulary, vocabulary);
    });
  });
}

}  // namespace flasheva
