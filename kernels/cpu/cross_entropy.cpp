//     forward   loss_n = log sum_v exp(z_nv) - z_n,target
//     backward  dz_nv = (exp(z_nv - log sum exp z_n) - [v = target]) scale, over z in place
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cross_entropy_contract.h"

namespace flasheva {

namespace {

template <class A>
struct SoftmaxStatistics {
  A maximum = -std::numeric_limits<A>::infinity();
  A sum = 0;  // of exp(z - maximum)

  A log_sum_exp() const { return maximum + std::log(sum); }
};

template <class T>
Accumulator<T> maximum_of(const T* x, std::int64_t size) {
  using A = Accumulator<T>;
  constexpr std::int64_t lanes = simd::lanes<A>;
  const simd::Vector<A> lowest = simd::broadcast(-std::numeric_limits<A>::infinity());
  simd::Vector<A> maxima[4] = {lowest, lowest, lowest, lowest};  // side by side, as in sum_of
  std::int64_t i = 0;
  for (; i + 4 * lanes <= size; i += 4 * lanes)
    for (int j = 0; j < 4; ++j) maxima[j] = simd::max(simd::load(x + i + j * lanes), maxima[j]);
  for (; i < size; i += lanes) {
    const auto rest = simd::load_first(x + i, std::min(lanes, size - i));
    maxima[0] = simd::max(simd::select(simd::first_lanes<A>(size - i), rest, lowest), maxima[0]);
  }
  return simd::maximum(simd::max(simd::max(maxima[0], maxima[1]), simd::max(maxima[2], maxima[3])));
}

// One pass over memory: a block is read twice, for its maximum and its sum, while it is in the nearest cache.
template <class T>
SoftmaxStatistics<Accumulator<T>> softmax_statistics(const T* logits, std::int64_t vocabulary) {
  using A = Accumulator<T>;
  constexpr std::int64_t block_size = 2048;
  SoftmaxStatistics<A> row;
  for (std::int64_t block = 0; block < vocabulary; block += block_size) {
    const std::int64_t size = std::min(block_size, vocabulary - block);
    const A maximum = std::max(row.maximum, maximum_of(logits + block, size));
    if (maximum > row.maximum) row.sum *= std::exp(row.maximum - maximum);
    const auto exponential = [=](auto z) { return simd::exp(z - maximum); };
    row.sum += sum_of<A>(size, exponential, logits + block);
    row.maximum = maximum;
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
  const A factor = scale / row.sum;
  const A probability = std::exp(static_cast<A>(logits[target]) - row.maximum) / row.sum;
  const auto gradient = [=](auto z) { return simd::exp(z - row.maximum) * factor; };
  map(logits, 0, vocabulary, gradient, logits);
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

void check_in_vocabulary(const Tensor& targets, const Tensor& logits) {
  bool targets_in_vocabulary = true;
  for (std::int64_t n = 0; n < targets.size(); ++n) {
    const std::int32_t target = targets.as<std::int32_t>()[n];
    targets_in_vocabulary &= target >= 0 && target < logits.dim(1);
  }
  FLASHEVA_CHECK(targets_in_vocabulary);
}

}  // namespace

void CpuOps::cross_entropy_forward(Tensor losses, Tensor correct, Tensor logits, Tensor targets,
                                   Tensor mask) {
  check_cross_entropy(Device::cpu, losses, logits, targets, mask);
  check_in_vocabulary(targets, logits);
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

void CpuOps::cross_entropy_backward(Tensor logits, Tensor losses, Tensor targets, Tensor mask, Tensor scale) {
  check_cross_entropy_backward(Device::cpu, logits, losses, targets, mask, scale);
  check_in_vocabulary(targets, logits);
  dispatch(logits.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    auto* loss = losses.as<A>();
    const A of_loss = *scale.as<A>();
    for_each_row<T>(
        logits, targets, mask,
        [&](std::int64_t n, T* logits_n, std::int32_t target) {
          const auto row = softmax_statistics(logits_n, logits.dim(1));
          loss[n] = row.log_sum_exp() - static_cast<A>(logits_n[target]);
          write_gradient(logits_n, logits.dim(1), target, row, of_loss);
        },
        [&](std::int64_t n, T* logits_n) {
          loss[n] = 0;
          std::fill_n(logits_n, logits.dim(1), T(0.0f));
        });
  });
}

}  // namespace flasheva
