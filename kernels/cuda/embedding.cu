//     forward   out_n = table[token_n]
//     backward  dtable[token_n] += dout_n      "+=", in the order of n
// The backward pass sorts the tokens' positions by token first, equal tokens in ascending order of n; then
// one block a token adds up its rows, so that every row of the table is read and written once and nothing
// depends on timing. The sort takes two passes, by the lower and then the upper half of the tokens' bits. A
// pass has a block for each value of its half, about sqrt(V) blocks. Each reads all N tokens: what precedes
// its own is the number of smaller halves, and its own follow in the order in which they stand. That is N
// sqrt(V) reads from the second-level cache and neither an atomic addition nor a histogram.
#include <bit>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/scratch_layouts.h"
#include "kernels/cuda/token.cuh"
#include "kernels/cuda/warp.cuh"

namespace flasheva {

namespace {

// A warp copies a row.
template <int width, class T>
__global__ void __launch_bounds__(256)
    gather_kernel(T* out, const std::int32_t* tokens, const T* table, std::int64_t count,
                  std::int64_t vocabulary, std::int64_t columns, int* bad_token) {
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * 8 + threadIdx.x / warp_size;
  if (n >= count) return;
  const T* from = table + valid_token(tokens[n], vocabulary, bad_token) * columns;
  T* into = out + n * columns;
#pragma unroll 4
  for (std::int64_t i = threadIdx.x % warp_size * width; i < columns; i += warp_size * width)
    store_vector(into + i, load_vector<width>(from + i));
}

// Tokens and where they stand.
struct TokenList {
  std::int32_t *tokens, *positions;
};

constexpr int sort_threads = 1024, sort_warps = sort_threads / warp_size;

// The thread's place among those whose flag is set, in the order of the threads; `total` is their number.
__device__ inline int rank_in_block(bool flag, int* warp_counts, int& total) {
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const unsigned flags = __ballot_sync(all_lanes, flag);
  if (lane == 0) warp_counts[warp] = __popc(flags);
  __syncthreads();
  int rank = __popc(flags & ((1u << lane) - 1));
  total = 0;
  for (int w = 0; w < sort_warps; ++w) {
    if (w < warp) rank += warp_counts[w];
    total += warp_counts[w];
  }
  __syncthreads();
  return rank;
}

// One pass of the sort: the block's own tokens are those whose digit, `bits` bits from `shift` on, is the
// block's index. in.positions is nullptr in the first pass, where token n stands at n.
__global__ void __launch_bounds__(sort_threads)
    sort_kernel(TokenList out, TokenList in, std::int32_t count, int shift, int bits, std::int64_t vocabulary,
                int* bad_token) {
  __shared__ int shared[sort_warps];
  const auto digit_of = [=](std::int32_t token) { return token >> shift & ((1 << bits) - 1); };
  const int own_digit = static_cast<int>(blockIdx.x);
  int smaller = 0, own = 0;
  for (std::int32_t n = threadIdx.x; n < count; n += sort_threads) {
    const int digit = digit_of(valid_token(in.tokens[n], vocabulary, bad_token));
    smaller += digit < own_digit;
    own += digit == own_digit;
  }
  std::int32_t next = block_sum<sort_threads>(smaller, shared);
  if (block_sum<sort_threads>(own, shared) == 0) return;
  for (std::int32_t first = 0; first < count; first += sort_threads) {
    const std::int32_t n = first + static_cast<std::int32_t>(threadIdx.x);
    const std::int32_t token = n < count ? valid_token(in.tokens[n], vocabulary, bad_token) : 0;
    const bool is_own = n < count && digit_of(token) == own_digit;
    int total;
    const std::int32_t place = next + rank_in_block(is_own, shared, total);
    if (is_own) {
      out.tokens[place] = token;
      out.positions[place] = in.positions ? in.positions[n] : n;
    }
    next += total;
  }
}

// The block whose token is the first of its kind in the sorted list adds up the rows of all of them; a thread
// takes `width` columns. Each lane of a warp looks up where one of the next 32 rows is; rows are loaded
// several at a time and added in order.
template <int width, class T>
__global__ void __launch_bounds__(128)
    add_rows_kernel(Accumulator<T>* dtable, const T* dout, TokenList sorted, std::int32_t count,
                    std::int64_t columns) {
  using A = Accumulator<T>;
  constexpr int at_once = 16;
  const std::int32_t first = static_cast<std::int32_t>(blockIdx.x), token = sorted.tokens[first];
  if (first > 0 && sorted.tokens[first - 1] == token) return;
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.y) * 128 + threadIdx.x) * width;
  const bool has_columns = column < columns;
  A* into = dtable + token * columns + column;
  Vector<A, width> sums{};
  if (has_columns) sums = load_vector<width>(into);
  int found = warp_size;
  for (std::int32_t n = first; found == warp_size; n += warp_size) {
    const std::int32_t own = n + static_cast<std::int32_t>(threadIdx.x % warp_size);
    const std::int32_t place = own < count ? sorted.positions[own] : 0;  // on its way beside the token
    found = __popc(__ballot_sync(all_lanes, own < count && sorted.tokens[own] == token));
#pragma unroll 1
    for (int r = 0; r < found; r += at_once) {
      const int left = has_columns ? found - r : 0;
      Vector<T, width> rows[at_once];
#pragma unroll
      for (int j = 0; j < at_once; ++j) {
        const T* row = dout + __shfl_sync(all_lanes, place, r + j) * columns + column;
        if (j < left) rows[j] = load_vector<width>(row);
      }
#pragma unroll
      for (int j = 0; j < at_once; ++j)
#pragma unroll
        for (int i = 0; i < width; ++i)
          if (j < left) sums.value[i] += widened(rows[j].value[i]);
    }
  }
  if (has_columns) store_vector(into, sums);
}

}  // namespace

void CudaOps::embedding_forward(Tensor out, Tensor tokens, Tensor table) {
  FLASHEVA_CHECK(table.shape.rank() == 2 && matches_on_gpu(table, table.dtype, table.shape));
  FLASHEVA_CHECK(tokens.shape.rank() == 1 && matches_on_gpu(tokens, DType::i32, tokens.shape));
  FLASHEVA_CHECK(matches_on_gpu(out, table.dtype, {tokens.dim(0), table.dim(1)}));
  dispatch(table.dtype, [&]<class T>(T) {
    const std::int64_t count = tokens.dim(0), columns = table.dim(1);
    const auto gather = [&](auto kernel) {
      launch(stream_, kernel, {divide_up(count, 8)}, 256, 0, out.as<T>(), tokens.as<std::int32_t>(),
             table.as<T>(), count, table.dim(0), columns, bad_token_);
    };
    constexpr int width = vector_width<T>;
    if (rows_are_aligned<width>(columns, out.as<T>(), table.as<T>()))
      gather(gather_kernel<width, T>);
    else
      gather(gather_kernel<1, T>);
  });
}

void CudaOps::embedding_backward(Tensor dtable, Tensor dout, Tensor tokens) {
  FLASHEVA_CHECK(dout.shape.rank() == 2 && matches_on_gpu(dout, dout.dtype, dout.shape));
  FLASHEVA_CHECK(matches_on_gpu(tokens, DType::i32, {dout.dim(0)}));
  FLASHEVA_CHECK(dtable.shape.rank() == 2 &&
                 matches_on_gpu(dtable, accumulation_type(dout.dtype), {dtable.dim(0), dout.dim(1)}));
  const std::int64_t vocabulary = dtable.dim(0), columns = dout.dim(1);
  const auto count = static_cast<std::int32_t>(tokens.dim(0));
  const auto scratch =
      scratch_.carve<SortedTokensScratch>("the backward pass of the embedding", std::int64_t{count});
  const auto list_of = [](const Tensor& its_tokens, const Tensor& positions) {
    return TokenList{its_tokens.as<std::int32_t>(), positions.as<std::int32_t>()};
  };
  const TokenList unsorted = list_of(tokens, {}), sorted = list_of(scratch.tokens, scratch.positions),
                  half_sorted = list_of(scratch.half_tokens, scratch.half_positions);
  const int bits = (static_cast<int>(std::bit_width(static_cast<std::uint64_t>(vocabulary - 1))) + 1) / 2;
  const auto sort = [&](const TokenList& out, const TokenList& in, int shift) {
    launch(stream_, sort_kernel, {std::int64_t{1} << bits}, sort_threads, 0, out, in, count, shift, bits,
           vocabulary, bad_token_);
  };
  sort(half_sorted, unsorted, 0);
  sort(sorted, half_sorted, bits);
  dispatch(dout.dtype, [&]<class T>(T) {
    const auto add_rows = [&](auto kernel, int width) {
      launch(stream_, kernel, {count, divide_up(columns, 128 * width)}, 128, 0, dtable.as<Accumulator<T>>(),
             dout.as<T>(), sorted, count, columns);
    };
    constexpr int width = vector_width<T>;
    if (rows_are_aligned<width>(columns, dout.as<T>(), dtable.as<Accumulator<T>>()))
      add_rows(add_rows_kernel<width, T>, width);
    else
      add_rows(add_rows_kernel<1, T>, 1);
  });
}

}  // namespace flasheva
