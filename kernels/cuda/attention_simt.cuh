// Attention in float32 and float64, on the cores that multiply one number at a time (tensor cores would round
// operands). A block of 16 x 16 threads works on a tile of `query_tile` rows by `key_tile` rows.
//
//     forward   o_n = sum_m p_nm v_m,  p_nm = exp(l_nm - lse_n),  l_nm = s q_n.k_m (+ bias)
//     backward  D_n = dO_n . O_n,  dS_nm = p_nm (dO_n . v_m - D_n)
//               dq_n = s sum_m dS_nm k_m,  dk_m = s sum_n dS_nm q_n,  dv_m = sum_n p_nm dO_n
//               dbias = sum over n and chunks of dS
#pragma once

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_simt_tile.cuh"
#include "kernels/cuda/warp.cuh"

namespace flasheva::attention {

template <class A>
__device__ inline A negative_infinity() {
  return static_cast<A>(-INFINITY);
}

// Whether a block can have so much, beside what its rows see; float64 is the simulator's alone.
template <class Tile>
constexpr bool fits(std::size_t shared_bytes) {
  return sizeof(typename Tile::Element) == sizeof(double) ||
         shared_bytes + Tile::query_tile * sizeof(Rows) <= smallest_shared_bytes;
}

// --- forward -------------------------------------------------------------------------------------------

template <class Tile>
constexpr std::size_t forward_shared_bytes() {
  constexpr std::size_t bytes =
      sizeof(typename Tile::Element) * ((Tile::query_tile + 2 * Tile::key_tile) * Tile::row +
                                        Tile::query_tile * weight_row<Tile, Tile::key_tile>);
  static_assert(fits<Tile>(bytes));
  return bytes;
}

// Block (head, tile of queries), the last tile first: it has the most keys.
template <class Tile, class A = typename Tile::Element>
__global__ void __launch_bounds__(simt_threads, 2)
    simt_forward(A* out, A* log_sum_exp, Operands<A> in, Problem problem) {
  constexpr int R = Tile::query_tile / side, C = Tile::key_tile / side, d_row = Tile::row;
  __shared__ Rows seen[Tile::query_tile];
  const int d = problem.head_dim, head = static_cast<int>(blockIdx.x);
  const int first = static_cast<int>(gridDim.y - 1 - blockIdx.y) * Tile::query_tile;
  const int count = min(Tile::query_tile, problem.queries - first);
  const int x = static_cast<int>(threadIdx.x) % side, y = static_cast<int>(threadIdx.x) / side;
  const A scale = log2_e<A> / sqrt(static_cast<A>(d)), bias = chunk_bias_of(in, problem, head);

  A* queries = reinterpret_cast<A*>(dynamic_shared());
  A *keys = queries + Tile::query_tile * d_row, *values = keys + Tile::key_tile * d_row,
    *weights = values + Tile::key_tile * d_row;
  const std::int64_t q_at = (static_cast<std::int64_t>(head) * problem.queries + first) * d;
  load_rows<Tile, Tile::query_tile>(queries, in.q + q_at, count, d, d);

  A sums[R][Tile::columns] = {}, largest[R], total[R];
#pragma unroll
  for (int i = 0; i < R; ++i) {
    largest[i] = -1e30;
    total[i] = 0;
  }
  for (int chunks = 0; chunks < 2; ++chunks) {
    const Source<A> source = source_of(in, problem, head, chunks);
    const Rows all = load_seen<Tile>(seen, problem, first, count, chunks);
    for (int key = all.first; key < all.end; key += Tile::key_tile) {
      __syncthreads();
      load_keys<Tile>(keys, values, source, key, min(Tile::key_tile, all.end - key), d);
      __syncthreads();
      A logits[R][C] = {};
      multiply_rows<Tile>(logits, queries, keys);
#pragma unroll
      for (int i = 0; i < R; ++i) {
        const Rows visible = seen[y * R + i];
        A row_max = largest[i];
#pragma unroll
        for (int j = 0; j < C; ++j) {
          const int m = key + x + side * j;
          const bool there = m >= visible.first && m < visible.end;
          logits[i][j] = there ? logits[i][j] * scale + (chunks ? bias : A(0)) : negative_infinity<A>();
          row_max = logits[i][j] > row_max ? logits[i][j] : row_max;
        }
        row_max = warp_max<side>(row_max);
        const A factor = exp2(largest[i] - row_max);
        largest[i] = row_max;
        total[i] *= factor;
#pragma unroll
        for (int c = 0; c < Tile::columns; ++c) sums[i][c] *= factor;
#pragma unroll
        for (int j = 0; j < C; ++j) {
          const A p = exp2(logits[i][j] - row_max);
          total[i] += p;
          weights[(y * R + i) * weight_row<Tile, Tile::key_tile> + x + side * j] = p;
        }
      }
      __syncwarp();  // a row's weights are made and used by 16 lanes of one warp
      combine_rows<Tile, R, Tile::key_tile>(sums, weights, values);
    }
  }

#pragma unroll
  for (int i = 0; i < R; ++i) {
    const A sum = warp_sum<side>(total[i]);
    if (x == 0 && y * R + i < count)
      log_sum_exp[static_cast<std::int64_t>(head) * problem.queries + first + y * R + i] =
          largest[i] * ln_2<A> + log(sum);
    total[i] = 1 / sum;
  }
  const std::int64_t row_stride = static_cast<std::int64_t>(problem.heads) * d;
  store_rows<Tile, R>(out + merged_row(problem, head, first), sums, total, count, row_stride, d);
}

// --- backward --------------------------------------------------------------------------------------------

template <class Tile>
constexpr std::size_t query_gradient_shared_bytes() {
  constexpr std::size_t bytes =
      sizeof(typename Tile::Element) * (2 * (Tile::query_tile + Tile::key_tile) * Tile::row +
                                        Tile::query_tile * weight_row<Tile, Tile::key_tile> + side);
  static_assert(fits<Tile>(bytes));
  return bytes;
}

// Block (head, tile of queries): dq of the tile, and in bias_parts (heads, tiles), optional, the sum of dS
// over its chunks.
template <class Tile, class A = typename Tile::Element>
__global__ void __launch_bounds__(simt_threads, 2)
    simt_query_gradient(A* dq, A* bias_parts, Operands<A> in, OutputGradients<A> gradients, Problem problem) {
  constexpr int R = Tile::query_tile / side, C = Tile::key_tile / side, d_row = Tile::row;
  __shared__ Rows seen[Tile::query_tile];
  const int d = problem.head_dim, head = static_cast<int>(blockIdx.x);
  const int tile = static_cast<int>(gridDim.y - 1 - blockIdx.y), first = tile * Tile::query_tile;
  const int count = min(Tile::query_tile, problem.queries - first);
  const int x = static_cast<int>(threadIdx.x) % side, y = static_cast<int>(threadIdx.x) / side;
  const A softmax_scale = 1 / sqrt(static_cast<A>(d)), scale = softmax_scale * log2_e<A>;
  const A bias = chunk_bias_of(in, problem, head);

  A* queries = reinterpret_cast<A*>(dynamic_shared());
  A *douts = queries + Tile::query_tile * d_row, *keys = douts + Tile::query_tile * d_row,
    *values = keys + Tile::key_tile * d_row, *weights = values + Tile::key_tile * d_row,
    *shared_sums = weights + Tile::query_tile * weight_row<Tile, Tile::key_tile>;
  const std::int64_t row = static_cast<std::int64_t>(head) * problem.queries + first;
  const std::int64_t row_stride = static_cast<std::int64_t>(problem.heads) * d;
  load_rows<Tile, Tile::query_tile>(queries, in.q + row * d, count, d, d);
  load_rows<Tile, Tile::query_tile>(douts, gradients.dout + merged_row(problem, head, first), count,
                                    row_stride, d);
  A sums[R][Tile::columns] = {}, log_sum[R], row_dot[R], bias_sum = 0;
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int n = min(y * R + i, count - 1);
    log_sum[i] = gradients.log_sum_exp[row + n] * log2_e<A>;
    row_dot[i] = gradients.row_dots[row + n];
  }
  for (int chunks = 0; chunks < 2; ++chunks) {
    const Source<A> source = source_of(in, problem, head, chunks);
    const Rows all = load_seen<Tile>(seen, problem, first, count, chunks);
    for (int key = all.first; key < all.end; key += Tile::key_tile) {
      __syncthreads();
      load_keys<Tile>(keys, values, source, key, min(Tile::key_tile, all.end - key), d);
      __syncthreads();
      A logits[R][C] = {}, dp[R][C] = {};
      multiply_rows<Tile>(logits, queries, keys);
      multiply_rows<Tile>(dp, douts, values);
#pragma unroll
      for (int i = 0; i < R; ++i) {
        const Rows visible = seen[y * R + i];
#pragma unroll
        for (int j = 0; j < C; ++j) {
          const int m = key + x + side * j;
          const bool there = m >= visible.first && m < visible.end;
          const A logit = logits[i][j] * scale + (chunks ? bias : A(0));
          const A ds = there ? exp2(logit - log_sum[i]) * (dp[i][j] - row_dot[i]) : A(0);
          if (chunks) bias_sum += ds;
          weights[(y * R + i) * weight_row<Tile, Tile::key_tile> + x + side * j] = ds;
        }
      }
      __syncwarp();
      combine_rows<Tile, R, Tile::key_tile>(sums, weights, keys);
    }
  }
  A scales[R];
#pragma unroll
  for (int i = 0; i < R; ++i) scales[i] = softmax_scale;
  store_rows<Tile, R>(dq + row * d, sums, scales, count, d, d);
  if (bias_parts == nullptr) return;
  bias_sum = block_sum<simt_threads>(bias_sum, shared_sums);
  if (threadIdx.x == 0) bias_parts[static_cast<std::int64_t>(head) * gridDim.y + tile] = bias_sum;
}

template <class Tile>
constexpr std::size_t key_gradient_shared_bytes() {
  constexpr std::size_t bytes =
      sizeof(typename Tile::Element) * (2 * (Tile::query_tile + Tile::key_tile) * Tile::row +
                                        Tile::key_tile * weight_row<Tile, Tile::query_tile>);
  static_assert(fits<Tile>(bytes));
  return bytes;
}

// dkeys, dvalues (heads, segments, key rows, d) = the gradients of a source's rows through the queries of
// each segment. Block (head, tile of keys, segment). Tokens have one segment.
template <class Tile, class A = typename Tile::Element>
__global__ void __launch_bounds__(simt_threads)
    simt_key_gradient(A* dkeys, A* dvalues, Operands<A> in, OutputGradients<A> gradients, Problem problem,
                      Segments segments, bool chunks) {
  constexpr int R = Tile::key_tile / side, C = Tile::query_tile / side, d_row = Tile::row;
  const int d = problem.head_dim, head = static_cast<int>(blockIdx.x);
  const int key = static_cast<int>(blockIdx.y) * Tile::key_tile, segment = static_cast<int>(blockIdx.z);
  const int rows = chunks ? problem.chunks : problem.tokens, key_count = min(Tile::key_tile, rows - key);
  const int x = static_cast<int>(threadIdx.x) % side, y = static_cast<int>(threadIdx.x) / side;
  const A softmax_scale = 1 / sqrt(static_cast<A>(d)), scale = softmax_scale * log2_e<A>;
  const A bias = chunks ? chunk_bias_of(in, problem, head) : A(0);

  A* keys = reinterpret_cast<A*>(dynamic_shared());
  A *values = keys + Tile::key_tile * d_row, *queries = values + Tile::key_tile * d_row,
    *douts = queries + Tile::query_tile * d_row, *weights = douts + Tile::query_tile * d_row;
  const Source<A> source = source_of(in, problem, head, chunks);
  load_keys<Tile>(keys, values, source, key, key_count, d);

  Rows range = chunks ? problem.queries_of_chunks(key) : problem.queries_of_tokens(key, key + key_count - 1);
  range.first = max(range.first, segment * segments.queries);
  range.end = min(range.end, (segment + 1) * segments.queries);
  const std::int64_t row = static_cast<std::int64_t>(head) * problem.queries;
  const std::int64_t row_stride = static_cast<std::int64_t>(problem.heads) * d;
  A dk[R][Tile::columns] = {}, dv[R][Tile::columns] = {};
  for (int first = range.first; first < range.end; first += Tile::query_tile) {
    __syncthreads();
    const int count = min(Tile::query_tile, range.end - first);
    load_rows<Tile, Tile::query_tile>(queries, in.q + (row + first) * d, count, d, d);
    load_rows<Tile, Tile::query_tile>(douts, gradients.dout + merged_row(problem, head, first), count,
                                      row_stride, d);
    __syncthreads();
    A logits[R][C] = {}, dp[R][C] = {};
    multiply_rows<Tile>(logits, keys, queries);
    multiply_rows<Tile>(dp, values, douts);
#pragma unroll
    for (int j = 0; j < C; ++j) {
      const int n = x + side * j;
      const bool there = n < count;
      const Rows seen = there ? problem.seen(first + n, chunks) : Rows{0, 0};
      const A log_sum = there ? gradients.log_sum_exp[row + first + n] * log2_e<A> : A(0);
      const A row_dot = there ? gradients.row_dots[row + first + n] : A(0);
#pragma unroll
      for (int i = 0; i < R; ++i) {
        const int m = key + y * R + i;
        const A p = m >= seen.first && m < seen.end ? exp2(logits[i][j] * scale + bias - log_sum) : A(0);
        weights[(y * R + i) * weight_row<Tile, Tile::query_tile> + n] = p;
        dp[i][j] = p * (dp[i][j] - row_dot);
      }
    }
    __syncwarp();
    combine_rows<Tile, R, Tile::query_tile>(dv, weights, douts);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
      for (int j = 0; j < C; ++j)
        weights[(y * R + i) * weight_row<Tile, Tile::query_tile> + x + side * j] = dp[i][j];
    __syncwarp();
    combine_rows<Tile, R, Tile::query_tile>(dk, weights, queries);
  }
  A scales[R], ones[R];
#pragma unroll
  for (int i = 0; i < R; ++i) {
    scales[i] = softmax_scale;
    ones[i] = 1;
  }
  const std::int64_t at = ((static_cast<std::int64_t>(head) * segments.count + segment) * rows + key) * d;
  store_rows<Tile, R>(dkeys + at, dk, scales, key_count, d, d);
  store_rows<Tile, R>(dvalues + at, dv, ones, key_count, d, d);
}

// --- launches --------------------------------------------------------------------------------------------

// Calls body(Tile{}) with the tile for a head dimension: as large as fits the smallest GPUs' shared memory
// (99 KB a block).
template <class A, class Body>
auto with_tile(int head_dim, const Body& body) {
  if constexpr (std::is_same_v<A, double>) {
    if (head_dim <= 64) return body(SimtTile<double, 64, 32, 32>{});
    return body(SimtTile<double, 256, 16, 16>{});
  } else {
    if (head_dim <= 64) return body(SimtTile<float, 64, 64, 64>{});
    if (head_dim <= 128) return body(SimtTile<float, 128, 32, 48>{});
    return body(SimtTile<float, 256, 16, 16>{});
  }
}

template <class T>
void Kernels<T>::forward(cudaStream_t stream, T* out, A* log_sum_exp, const Operands<T>& in,
                         const Problem& problem, std::int64_t heads) {
  with_tile<T>(problem.head_dim, [&]<class Tile>(Tile) {
    launch(stream, simt_forward<Tile>, {heads, divide_up(problem.queries, Tile::query_tile)}, simt_threads,
           forward_shared_bytes<Tile>(), out, log_sum_exp, in, problem);
  });
}

template <class T>
std::int64_t Kernels<T>::query_gradient(cudaStream_t stream, T* dq, A* bias_parts, const Operands<T>& in,
                                        const OutputGradients<T>& gradients, const Problem& problem,
                                        std::int64_t heads) {
  return with_tile<T>(problem.head_dim, [&]<class Tile>(Tile) {
    const std::int64_t tiles = divide_up(problem.queries, Tile::query_tile);
    launch(stream, simt_query_gradient<Tile>, {heads, tiles}, simt_threads,
           query_gradient_shared_bytes<Tile>(), dq, bias_parts, in, gradients, problem);
    return tiles;
  });
}

template <class T>
void Kernels<T>::token_gradient(cudaStream_t stream, T* dk, T* dv, const Operands<T>& in,
                                const OutputGradients<T>& gradients, const Problem& problem,
                                std::int64_t heads) {
  with_tile<T>(problem.head_dim, [&]<class Tile>(Tile) {
    launch(stream, simt_key_gradient<Tile>, {heads, divide_up(problem.tokens, Tile::key_tile)}, simt_threads,
           key_gradient_shared_bytes<Tile>(), dk, dv, in, gradients, problem, Segments{1, problem.queries},
           false);
  });
}

template <class T>
void Kernels<T>::chunk_gradient(cudaStream_t stream, A* dkappa, A* dbeta, const Operands<T>& in,
                                const OutputGradients<T>& gradients, const Problem& problem,
                                const Segments& segments, std::int64_t heads) {
  with_tile<T>(problem.head_dim, [&]<class Tile>(Tile) {
    launch(stream, simt_key_gradient<Tile>,
           {heads, divide_up(problem.chunks, Tile::key_tile), segments.count}, simt_threads,
           key_gradient_shared_bytes<Tile>(), dkappa, dbeta, in, gradients, problem, segments, true);
  });
}

}  // namespace flasheva::attention
