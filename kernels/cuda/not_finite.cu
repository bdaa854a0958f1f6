//     first = min { i : an element of x_i is not finite }, -1 where there is none in the last x
// One launch for the last tensor, and one for as many of the others as are of one type and fit into a table;
// its blocks return at once where the last is finite. What is found is a minimum, whatever the blocks' order.
#include <algorithm>
#include <limits>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_table.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/not_finite_contract.h"

namespace flasheva {

namespace {

constexpr int search_threads = 256;
constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();  // -1 as int32

struct Searched {
  const void* x;
  std::int64_t size;
};

// The tensors of the table are number `index` and on.
template <class T>
__global__ void __launch_bounds__(search_threads)
    search_kernel(std::uint32_t* first, const TensorTable<Searched> table, std::uint32_t index, bool last) {
  if (!last && *first == none) return;
  const int block = static_cast<int>(blockIdx.x), place = table.tensor_of(block),
            begin = table.first_block(place);
  const T* x = static_cast<const T*>(table[place].x);
  const std::int64_t size = table[place].size, blocks = table.first_block(place + 1) - begin;
  bool finite = true;
  for (std::int64_t i = static_cast<std::int64_t>(block - begin) * search_threads + threadIdx.x; i < size;
       i += blocks * search_threads) {
    const Accumulator<T> difference = widened(x[i]) - widened(x[i]);  // NaN where x is not finite
    finite &= difference == 0;
  }
  if (!finite) atomicMin(first, index + static_cast<std::uint32_t>(place));
}

}  // namespace

void CudaOps::first_not_finite(Tensor first, std::span<const Tensor> tensors) {
  check_first_not_finite(Device::cuda, first, tensors);
  constexpr std::int64_t elements_a_block = 8 * search_threads;
  FLASHEVA_CUDA(cudaMemsetAsync(first.data, 0xff, first.bytes(), stream_));  // none
  const std::size_t last = tensors.size() - 1;
  const auto search = [&](std::size_t next, std::size_t end) {
    while (next < end) {
      const std::size_t begin = next;
      const DType type = tensors[begin].dtype;
      TensorTable<Searched> table;
      for (; next < end && tensors[next].dtype == type && !table.full(); ++next)
        table.add(
            {tensors[next].data, tensors[next].size()},
            std::min<std::int64_t>(divide_up(tensors[next].size(), elements_a_block), multiprocessors_));
      dispatch(type, [&]<class T>(T) {
        launch(stream_, search_kernel<T>, {table.blocks()}, search_threads, 0,
               static_cast<std::uint32_t*>(first.data), table, begin, begin == last);
      });
    }
  };
  search(last, tensors.size());
  search(0, last);
}

}  // namespace flasheva
