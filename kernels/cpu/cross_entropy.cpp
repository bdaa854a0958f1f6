//     forward   loss_n = log sum_v exp(z_nv) - z_n,target
//     backward  dz_nv = (exp(z_nv - log sum exp z_n) - [v = target]) scale, over z in place
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/simd.h"

namespace flasheva {

namespace {

template <class A>
struct SoftmaxStatistics {
  A maximum = -std::numeric_limits<A>::infinity();
  A sum = 0;  // of exp(z - maximum)

  A log_sum_exp() const { return maximum + std::log(sum); }
};

// The elements from p on; `fill` in the lanes beyond the last.
template <class T>
simd::Vector<Accumulator<T>> load_padded(const T* p, std::int64_t count, Accumulator<T> fill) {
  using A = Accumulator<T>;
  if (count >= simd::lanes<A>) return simd::load(p);
  return simd::select(simd::first_lanes<A>(count), simd::load_first(p, count), simd::broadcast(fill));
}

// One pass over memory: a block is read twice, for its maximum and its sum, while it is in the nearest cache.
template <class T>
SoftmaxStatistics<Accumulator<T>> softmax_statistics(const T* logits, std::int64_t vocabulary) {
  using A = Accumulator<T>;
  constexpr std::int64_t lanes = simd::lanes<A>, block_size = 2048;
  constexpr A lowest = -std::numeric_limits<A>::infinity();
  SoftmaxStatistics<A> row;
  for (std::int64_t block = 0; block < vocabulary; block += block_size) {
    const std::int64_t end = std::min(block + block_size, vocabulary);
    auto maxima = simd::broadcast(row.maximum);
    for (std::int64_t i = block; i < end; i += lanes)
      maxima = simd::max(load_padded(logits + i, end - i, lowest), maxima);
    const A maximum = simd::maximum(maxima);
    if (maximum > row.maximum) row.sum *= std::exp(row.maximum - maximum);
    row.maximum = maximum;
    simd::Vector<A> sums{};
    for (std::int64_t i = block; i < end; i += lanes)
      sums += simd::exp(load_padded(logits + i, end - i, lowest) - maximum);
    row.sum += simd::sum(sums);
  }
  return row;
}

// Whether the target has the largest logit, the first one of equals.
template <class T>
bool is_most_likely(const T* logits, std::int32_t target, Accumulator<T> maximum) {
  using A = Accumulator<T>;
  if (static_cast<A>(logits[target]) != maximum) return false;
  return std::none_of(logits, logits + target, [=](T logit) { return static_cast<A>(logit) == maximum; });
}

// logits = their gradient.
template <class T>
void write_gradient(T* logits, std::int64_t vocabulary, std::int32_t target,
                    SoftmaxStatistics<Accumulator<T>> row, Accumulator<T> scale) {
  using A = Accumulator<T>;
  constexpr std::int64_t lanes = simd::lanes<A>;
  const A factor = scale / row.sum;
  const A probability = std::exp(static_cast<A>(logits[target]) - row.maximum) / row.sum;
  std::int64_t i = 0;
  for (; i + lanes <= vocabulary; i += lanes)
    simd::store(logits + i, simd::exp(simd::load(logits + i) - row.maximum) * factor);
  const std::int64_t rest = vocabulary - i;
  simd::store_first(logits + i, simd::exp(simd::load_first(logits + i, rest) - row.maximum) * factor, rest);
  logits[target] = static_cast<T>((probability - 1) * scale);
}

// Calls row(n, logits of row n, target of row n) for every row that counts and skip(n, logits) for the
// others.
template <class T, class Row, class Skip>
void for_each_row(const Tensor& logits, const Tensor& targets, const Tensor& mask, const Row& row,
                  const Skip& skip) {
  const std::int64_t vocabulary = logits.dim(1);
  parallel_rows(logits.dim(0), vocabulary, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t n = first; n < last; ++n) {
      T* logits_n = logits.as<T>() + n * vocabulary;
      if (mask && mask.as<std::uint8_t>()[n] == 0)
        skip(n, logits_n);
      else
        row(n, logits_n, targets.as<std::int32_t>()[n]);
    }
  });
}

void check(const Tensor& losses, const Tensor& logits, const Tensor& targets, const Tensor& mask) {
  FLASHEVA_CHECK(logits.shape.rank() == 2 && matches(logits, logits.dtype, logits.shape));
  const std::int64_t rows = logits.dim(0);
  FLASHEVA_CHECK(matches(losses, accumulation_type(logits.dtype), {rows}));
  FLASHEVA_CHECK(matches(targets, DType::i32, {rows}));
  FLASHEVA_CHECK(!mask || matches(mask, DType::u8, {rows}));
  bool targets_in_vocabulary = true;
  for (std::int64_t n = 0; n < rows; ++n) {
    const std::int32_t target = targets.as<std::int32_t>()[n];
    targets_in_vocabulary &= target >= 0 && target < logits.dim(1);
  }
  FLASHEVA_CHECK(targets_in_vocabulary);
}

}  // namespace

void CpuOps::cross_entropy_forward(Tensor losses, Tensor correct, Tensor logits, Tensor targets,
                                   Tensor mask) {
  check(losses, logits, targets, mask);
  FLASHEVA_CHECK(!correct || matches(correct, DType::u8, losses.shape));
  dispatch(logits.dtype, [&]<class T>(T) {
    auto* loss = losses.as<Accumulator<T>>();
    auto* is_correct = correct.as<std::uint8_t>();
    for_each_row<T>(
        logits, targets, mask,
        [&](std::int64_t n, const T* logits_n, std::int32_t target) {
          const auto row = softmax_statistics(logits_n, logits.dim(1));
          loss[n] = row.log_sum_exp() - static_cast<Accumulator<T>>(logits_n[target]);
          if (is_correct) is_correct[n] = is_most_likely(logits_n, target, row.maximum);
        },
        [&](std::int64_t n, const T*) {
          loss[n] = 0;
          if (is_correct) is_correct[n] = 0;
        });
  });
}

void CpuOps::cross_entropy_backward(Tensor logits, Tensor losses, Tensor targets, Tensor mask, double scale) {
  check(losses, logits, targets, mask);
  dispatch(logits.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    auto* loss = losses.as<A>();
    for_each_row<T>(
        logits, targets, mask,
        [&](std::int64_t n, T* logits_n, std::int32_t target) {
          const auto row = softmax_statistics(logits_n, logits.dim(1));
          loss[n] = row.log_sum_exp() - static_cast<A>(logits_n[target]);
          write_gradient(logits_n, logits.dim(1), target, row, static_cast<A>(scale));
        },
        [&](std::int64_t n, T* logits_n) {
          loss[n] = 0;
          std::fill_n(logits_n, logits.dim(1), T(0.0f));
        });
  });
}

}  // namespace flasheva
