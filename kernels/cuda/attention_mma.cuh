// Attention in bfloat16 and float16 on tensor cores, products accumulated in float32; formulas as in
// attention_simt.cuh.
//
// A warp owns 16 rows of the tile that a block works on: queries in the forward pass and for dq, keys for dk
// and dv. Logits stay in the registers in which the product leaves them, from where they are the left factor
// of the next product. Tiles of the other side stream through two buffers of shared memory, the next one on
// its way while one is worked on. No sum crosses warps, so there is nothing to add up afterwards.
#pragma once

#include <climits>

#include "kernels/cuda/attention_mma_tile.cuh"
#include "kernels/cuda/fast_math.cuh"
#include "kernels/cuda/warp.cuh"

namespace flasheva::attention {

// --- keys of a tile of queries -------------------------------------------------------------------------

// The tiles of `keys` keys that queries first .. last see: of tokens, then of chunks.
template <int keys>
struct KeyTiles {
  Rows tokens, chunks;
  int token_tiles, all;

  __device__ KeyTiles(const Problem& problem, int first, int last)
      : tokens{problem.tokens_of(first).first, problem.tokens_of(last).end},
        chunks(problem.chunks_of(last)),
        token_tiles((tokens.end - tokens.first + keys - 1) / keys),
        all(token_tiles + (chunks.end + keys - 1) / keys) {}
  __device__ bool of_chunks(int tile) const { return tile >= token_tiles; }
  __device__ Rows rows(int tile) const {
    const int first = of_chunks(tile) ? (tile - token_tiles) * keys : tokens.first + tile * keys;
    return {first, min(first + keys, of_chunks(tile) ? chunks.end : tokens.end)};
  }
};

// Starts to load a tile of keys and values.
template <class Tile, int threads, int tile_keys, class T = typename Tile::T>
__device__ inline void load_keys(T* keys, T* values, const Operands<T>& in, const Problem& problem, int head,
                                 const KeyTiles<tile_keys>& tiles, int tile) {
  const Source<T> source = source_of(in, problem, head, tiles.of_chunks(tile));
  const Rows rows = tiles.rows(tile);
  const int d = problem.head_dim, count = rows.end - rows.first;
  const std::int64_t at = static_cast<std::int64_t>(rows.first) * d;
  load_tile<Tile, tile_keys, threads>(keys, source.keys + at, count, d, d);
  load_tile<Tile, tile_keys, threads>(values, source.values + at, count, d, d);
  commit_copies();
}

// What a query of the block's tile sees of a source: it stands in the padding of the query's row.
template <class Tile, class T>
__device__ inline auto& seen_by(T* queries, int row, bool chunks) {
  static_assert(2 * sizeof(Rows) == sizeof(T) * (Tile::row - Tile::D));
  using Seen = std::conditional_t<std::is_const_v<T>, const Rows, Rows>;
  return reinterpret_cast<Seen*>(queries + row * Tile::row + Tile::D)[chunks];
}

// All of the tile, each once: it takes divisions. Queries that are not there see nothing.
template <class Tile, class T = typename Tile::T>
__device__ inline void store_seen(T* queries, const Problem& problem, int first, int count) {
  static_assert(row_warps * warp_size == 2 * own_rows);  // a thread a query and source
  const int thread = static_cast<int>(threadIdx.x), row = thread % own_rows;
  const bool chunks = thread >= own_rows;
  seen_by<Tile>(queries, row, chunks) = row < count ? problem.seen(first + row, chunks) : Rows{0, 0};
}

// What the warp's rows see of one source. Rows g and g + 8 are the thread's own.
struct WarpView {
  Rows own[2], any, every;  // every: keys that all 16 rows see
};

template <class Tile, class T = typename Tile::T>
__device__ inline WarpView view_of_warp(const T* queries, int warp_row, int count, bool chunks) {
  const int g = static_cast<int>(threadIdx.x) % warp_size / 4;
  const auto seen = [=](int row) { return seen_by<Tile>(queries, warp_row + row, chunks); };
  const Rows top = seen(0), bottom = seen(max(count - 1, 0));
  return {{seen(g), seen(g + 8)},
          {top.first, bottom.end},
          count == warp_rows ? Rows{bottom.first, top.end} : Rows{0, 0}};
}

// logits = logits * scale + bias, -inf where a key is not seen.
template <int n>
__device__ inline void scale_and_mask(float (&logits)[n][4], const WarpView& view, Rows keys, float scale,
                                      float bias) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int j = 0; j < n; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) logits[j][i] = logits[j][i] * scale + bias;
  if (keys.first >= view.every.first && keys.first + 8 * n <= view.every.end) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int own = keys.first + 2 * t, begin = view.own[half].first - own, end = view.own[half].end - own;
#pragma unroll
    for (int j = 0; j < n; ++j)
#pragma unroll
      for (int column = 0; column < 2; ++column) {
        const bool seen = (j * 8 + column >= begin) & (j * 8 + column < end);  // no branch an element
        float& logit = logits[j][2 * half + column];
        logit = seen ? logit : -INFINITY;
      }
  }
}

// --- forward -------------------------------------------------------------------------------------------

template <class Tile>
constexpr std::size_t mma_forward_shared_bytes() {
  constexpr std::size_t bytes = sizeof(typename Tile::T) * (own_rows + 4 * Tile::forward_keys) * Tile::row;
  static_assert(bytes <= smallest_shared_bytes);
  return bytes;
}

// Brings the softmax so far under the maximum of new logits, which become weights.
template <int n, int m>
__device__ inline void softmax_step(float (&logits)[n][4], float (&sums)[m][4], float (&largest)[2],
                                    float (&total)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float row_max = largest[half];
#pragma unroll
    for (int j = 0; j < n; ++j) row_max = fmaxf(row_max, fmaxf(logits[j][2 * half], logits[j][2 * half + 1]));
    row_max = warp_max<4>(row_max);
    const float factor = fast_exp2(largest[half] - row_max);
    largest[half] = row_max;
    total[half] *= factor;
#pragma unroll
    for (int c = 0; c < m; ++c) {
      sums[c][2 * half] *= factor;
      sums[c][2 * half + 1] *= factor;
    }
#pragma unroll
    for (int j = 0; j < n; ++j)
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        logits[j][i] = fast_exp2(logits[j][i] - row_max);
        total[half] += logits[j][i];
      }
  }
}

// Block (head, tile of 64 queries), the last tile first: it has the most keys.
template <class Tile, class T = typename Tile::T>
__global__ void __launch_bounds__(row_warps* warp_size)
    mma_forward(T* out, float* log_sum_exp, Operands<T> in, Problem problem) {
  constexpr int tile_keys = Tile::forward_keys;
  constexpr int threads = row_warps * warp_size, n = tile_keys / 8, m = Tile::D / 8;
  const int d = problem.head_dim, head = static_cast<int>(blockIdx.x);
  const int first = static_cast<int>(gridDim.y - 1 - blockIdx.y) * own_rows;
  const int count = min(own_rows, problem.queries - first);
  const int warp_row = static_cast<int>(threadIdx.x) / warp_size * warp_rows;
  const int warp_count = min(warp_rows, count - warp_row);  // <= 0 where the warp has no query
  const float scale = log2_e<float> / sqrtf(static_cast<float>(d));
  const float chunk_bias = chunk_bias_of(in, problem, head);

  T* queries = reinterpret_cast<T*>(dynamic_shared());
  T *keys = queries + own_rows * Tile::row, *values = keys + 2 * tile_keys * Tile::row;
  const std::int64_t row = static_cast<std::int64_t>(head) * problem.queries + first;
  load_tile<Tile, own_rows, threads>(queries, in.q + row * d, count, d, d);
  store_seen<Tile>(queries, problem, first, count);
  const KeyTiles<tile_keys> tiles(problem, first, first + count - 1);
  load_keys<Tile, threads>(keys, values, in, problem, head, tiles, 0);

  float sums[m][4] = {}, largest[2] = {-1e30f, -1e30f}, total[2] = {};
  for (int tile = 0; tile < tiles.all; ++tile) {
    if (tile + 1 < tiles.all) {
      const int next = (tile + 1) % 2 * tile_keys * Tile::row;
      load_keys<Tile, threads>(keys + next, values + next, in, problem, head, tiles, tile + 1);
      wait_for_copies<1>();
    } else {
      wait_for_copies<0>();
    }
    __syncthreads();
    const Rows rows = tiles.rows(tile);
    const WarpView view = view_of_warp<Tile>(queries, warp_row, warp_count, tiles.of_chunks(tile));
    if (rows.first < view.any.end && rows.end > view.any.first) {
      const int buffer = tile % 2 * tile_keys * Tile::row;
      float logits[n][4] = {};
      multiply_rows<Tile>(logits, queries, warp_row, keys + buffer);
      scale_and_mask(logits, view, rows, scale, tiles.of_chunks(tile) ? chunk_bias : 0.0f);
      softmax_step(logits, sums, largest, total);
      combine_rows<Tile>(sums, logits, values + buffer, 0);
    }
    __syncthreads();
  }

  const int lane = static_cast<int>(threadIdx.x) % warp_size, g = lane / 4;
  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = warp_sum<4>(total[half]);
    inverse[half] = 1 / sum;
    if (lane % 4 == 0 && g + 8 * half < warp_count)
      log_sum_exp[row + warp_row + g + 8 * half] = largest[half] * ln_2<float> + logf(sum);
  }
  const std::int64_t stride = static_cast<std::int64_t>(problem.heads) * d;
  if (warp_count > 0)
    store_warp_rows<Tile>(out + merged_row(problem, head, first + warp_row), queries, warp_row, sums, inverse,
                          0, warp_count, stride, d);
}

// --- backward: dq ----------------------------------------------------------------------------------------

template <class Tile>
constexpr std::size_t mma_query_gradient_shared_bytes() {
  constexpr std::size_t bytes =
      sizeof(typename Tile::T) * (2 * own_rows + 4 * Tile::backward_keys) * Tile::row;
  static_assert(bytes <= smallest_shared_bytes);
  return bytes;
}

// Block (head, tile of 64 queries): dq of the tile, and in bias_parts (heads, tiles), optional, the sum of dS
// over its chunks. Where heads are small the compiler is to leave registers for a third block.
template <class Tile, class T = typename Tile::T>
__global__ void __launch_bounds__(row_warps* warp_size, Tile::D <= 64 ? 3 : 2)
    mma_query_gradient(T* dq, float* bias_parts, Operands<T> in, OutputGradients<T> gradients,
                       Problem problem) {
  constexpr int tile_keys = Tile::backward_keys;
  constexpr int threads = row_warps * warp_size, n = tile_keys / 8, m = Tile::D / 8;
  const int d = problem.head_dim, head = static_cast<int>(blockIdx.x);
  const int query_tile = static_cast<int>(gridDim.y - 1 - blockIdx.y), first = query_tile * own_rows;
  const int count = min(own_rows, problem.queries - first);
  const int warp_row = static_cast<int>(threadIdx.x) / warp_size * warp_rows;
  const int warp_count = min(warp_rows, count - warp_row), g = static_cast<int>(threadIdx.x) % warp_size / 4;
  const float scale = log2_e<float> / sqrtf(static_cast<float>(d));
  const float chunk_bias = chunk_bias_of(in, problem, head);

  T* queries = reinterpret_cast<T*>(dynamic_shared());
  T *douts = queries + own_rows * Tile::row, *keys = douts + own_rows * Tile::row,
    *values = keys + 2 * tile_keys * Tile::row;
  const std::int64_t row = static_cast<std::int64_t>(head) * problem.queries + first;
  load_tile<Tile, own_rows, threads>(queries, in.q + row * d, count, d, d);
  load_tile<Tile, own_rows, threads>(douts, gradients.dout + merged_row(problem, head, first), count,
                                     static_cast<std::int64_t>(problem.heads) * d, d);
  store_seen<Tile>(queries, problem, first, count);
  const KeyTiles<tile_keys> tiles(problem, first, first + count - 1);
  load_keys<Tile, threads>(keys, values, in, problem, head, tiles, 0);

  float sums[m][4] = {}, log_sum[2] = {}, row_dot[2] = {}, bias_sum = 0;
#pragma unroll
  for (int half = 0; half < 2; ++half)
    if (g + 8 * half < warp_count) {
      log_sum[half] = gradients.log_sum_exp[row + warp_row + g + 8 * half] * log2_e<float>;
      row_dot[half] = gradients.row_dots[row + warp_row + g + 8 * half];
    }
  for (int tile = 0; tile < tiles.all; ++tile) {
    if (tile + 1 < tiles.all) {
      const int next = (tile + 1) % 2 * tile_keys * Tile::row;
      load_keys<Tile, threads>(keys + next, values + next, in, problem, head, tiles, tile + 1);
      wait_for_copies<1>();
    } else {
      wait_for_copies<0>();
    }
    __syncthreads();
    const Rows rows = tiles.rows(tile);
    const WarpView view = view_of_warp<Tile>(queries, warp_row, warp_count, tiles.of_chunks(tile));
    if (rows.first < view.any.end && rows.end > view.any.first) {
      const int buffer = tile % 2 * tile_keys * Tile::row;
      float logits[n][4] = {}, ds[n][4] = {};
      multiply_rows<Tile>(logits, queries, warp_row, keys + buffer);
      multiply_rows<Tile>(ds, douts, warp_row, values + buffer);
      scale_and_mask(logits, view, rows, scale, tiles.of_chunks(tile) ? chunk_bias : 0.0f);
#pragma unroll
      for (int j = 0; j < n; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          ds[j][i] = fast_exp2(logits[j][i] - log_sum[i / 2]) * (ds[j][i] - row_dot[i / 2]);
          if (tiles.of_chunks(tile)) bias_sum += ds[j][i];
        }
      combine_rows<Tile>(sums, ds, keys + buffer, 0);
    }
    __syncthreads();
  }
  const float softmax_scale = scale * ln_2<float>, scales[2] = {softmax_scale, softmax_scale};
  if (warp_count > 0)
    store_warp_rows<Tile>(dq + (row + warp_row) * d, queries, warp_row, sums, scales, 0, warp_count, d, d);
  if (bias_parts == nullptr) return;
  bias_sum = block_sum<threads>(bias_sum, reinterpret_cast<float*>(keys));  // no tile is read any more
  if (threadIdx.x == 0) bias_parts[static_cast<std::int64_t>(head) * gridDim.y + query_tile] = bias_sum;
}

// --- backward: dk, dv, dkappa, dbeta ---------------------------------------------------------------------

// What a tile of keys reads of a query besides its row, in whose padding it stands.
struct alignas(16) QueryFacts {
  float log_sum, row_dot;
  Rows seen;

  // Of a query that is not there: seen by no key.
  __device__ QueryFacts() : log_sum(0), row_dot(0), seen{INT_MAX, 0} {}
  template <class T>
  __device__ QueryFacts(const OutputGradients<T>& gradients, const Problem& problem, int head, int query,
                        bool chunks)
      : seen(problem.seen(query, chunks)) {
    const std::int64_t row = static_cast<std::int64_t>(head) * problem.queries + query;
    log_sum = gradients.log_sum_exp[row];
    row_dot = gradients.row_dots[row];
  }
  // With log_sum in units of log2. The constructor does not multiply: it would wait there for what it loads.
  __device__ QueryFacts to_log2() const {
    QueryFacts facts = *this;
    facts.log_sum *= log2_e<float>;
    return facts;
  }
};

template <class Tile, class T = typename Tile::T>
__device__ inline auto& facts_of(T* queries, int query) {
  static_assert(sizeof(QueryFacts) == sizeof(T) * (Tile::row - Tile::D));
  using Facts = std::conditional_t<std::is_const_v<T>, const QueryFacts, QueryFacts>;
  return *reinterpret_cast<Facts*>(queries + query * Tile::row + Tile::D);
}

template <class Tile>
constexpr std::size_t mma_key_gradient_shared_bytes() {
  constexpr std::size_t bytes = sizeof(typename Tile::T) * (2 * own_rows + 4 * Tile::queries) * Tile::row;
  static_assert(bytes <= smallest_shared_bytes);
  return bytes;
}

// Starts to load queries first .. first + count - 1 and their dout.
template <class Tile, class T = typename Tile::T>
__device__ inline void load_queries(T* queries, T* douts, const Operands<T>& in,
                                    const OutputGradients<T>& gradients, const Problem& problem, int head,
                                    int first, int count) {
  constexpr int threads = Tile::key_threads;
  const int d = problem.head_dim;
  const std::int64_t row = static_cast<std::int64_t>(head) * problem.queries + first;
  load_tile<Tile, Tile::queries, threads>(queries, in.q + row * d, count, d, d);
  load_tile<Tile, Tile::queries, threads>(douts, gradients.dout + merged_row(problem, head, first), count,
                                          static_cast<std::int64_t>(problem.heads) * d, d);
  commit_copies();
}

// Logits (16 keys, 8 n queries) become p, and dp becomes dS. Without branches, which would part the loads of
// facts from each other.
template <class Tile, int n, class T = typename Tile::T>
__device__ inline void weights_and_gradients(float (&p)[n][4], float (&ds)[n][4], const T* queries,
                                             int first_key, float scale, float bias) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int j = 0; j < n; ++j)
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      const QueryFacts facts = facts_of<Tile>(queries, j * 8 + 2 * t + column);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = 2 * half + column, key = first_key + g + 8 * half;
        const bool seen = (key >= facts.seen.first) & (key < facts.seen.end);
        p[j][i] = fast_exp2(seen ? p[j][i] * scale + bias - facts.log_sum : -INFINITY);
        ds[j][i] = p[j][i] * (ds[j][i] - facts.row_dot);
      }
    }
}

// dkeys, dvalues (heads, segments, key rows, d), T for tokens (one segment) and float32 for chunks:
// the gradients through the queries of each segment. Block (head, tile of 64 keys, segment).
template <class Tile, class Out, class T = typename Tile::T>
__global__ void __launch_bounds__(Tile::key_threads)
    mma_key_gradient(Out* dkeys, Out* dvalues, Operands<T> in, OutputGradients<T> gradients, Problem problem,
                     Segments segments) {
  constexpr bool chunks = std::is_same_v<Out, float>;
  constexpr int threads = Tile::key_threads, n = Tile::queries / 8, m = Tile::D / 8 / Tile::column_parts;
  const int d = problem.head_dim, head = static_cast<int>(blockIdx.x);
  const int first_key = static_cast<int>(blockIdx.y) * own_rows, segment = static_cast<int>(blockIdx.z);
  const int rows = chunks ? problem.chunks : problem.tokens, key_count = min(own_rows, rows - first_key);
  const int warp = static_cast<int>(threadIdx.x) / warp_size, warp_row = warp % row_warps * warp_rows;
  const int first_column = warp / row_warps * m * 8;
  const float softmax_scale = 1 / sqrtf(static_cast<float>(d)), scale = softmax_scale * log2_e<float>;
  const float bias = chunks ? chunk_bias_of(in, problem, head) : 0.0f;

  T* keys = reinterpret_cast<T*>(dynamic_shared());
  T *values = keys + own_rows * Tile::row, *queries = values + own_rows * Tile::row,
    *douts = queries + 2 * Tile::queries * Tile::row;
  const Source<T> source = source_of(in, problem, head, chunks);
  const std::int64_t at = static_cast<std::int64_t>(first_key) * d;
  load_tile<Tile, own_rows, threads>(keys, source.keys + at, key_count, d, d);
  load_tile<Tile, own_rows, threads>(values, source.values + at, key_count, d, d);
  commit_copies();  // also where no query follows

  Rows range = chunks ? problem.queries_of_chunks(first_key)
                      : problem.queries_of_tokens(first_key, first_key + key_count - 1);
  range.first = max(range.first, segment * segments.queries);
  range.end = min(range.end, (segment + 1) * segments.queries);
  constexpr int buffer_size = Tile::queries * Tile::row;
  const int thread = static_cast<int>(threadIdx.x);
  static_assert(Tile::queries <= threads);
  const auto load = [&](int first, int buffer) {
    load_queries<Tile>(queries + buffer * buffer_size, douts + buffer * buffer_size, in, gradients, problem,
                       head, first, min(Tile::queries, range.end - first));
  };
  // A thread a query. They stay in registers while the products run, which their loads need not wait for.
  const auto load_facts = [&](int first) {
    return thread < Tile::queries && first + thread < range.end
               ? QueryFacts(gradients, problem, head, first + thread, chunks)
               : QueryFacts();
  };
  const auto store_facts = [&](const QueryFacts& facts, int buffer) {
    if (thread < Tile::queries) facts_of<Tile>(queries + buffer * buffer_size, thread) = facts.to_log2();
  };
  if (range.first < range.end) {
    load(range.first, 0);
    store_facts(load_facts(range.first), 0);
  }

  float dk[m][4] = {}, dv[m][4] = {};
  for (int first = range.first, buffer = 0; first < range.end; first += Tile::queries, buffer ^= 1) {
    if (first + Tile::queries < range.end) {
      load(first + Tile::queries, buffer ^ 1);
      wait_for_copies<1>();
    } else {
      wait_for_copies<0>();
    }
    const QueryFacts next = load_facts(first + Tile::queries);
    __syncthreads();
    const T *query_rows = queries + buffer * buffer_size, *dout_rows = douts + buffer * buffer_size;
    float p[n][4] = {}, ds[n][4] = {};
    multiply_rows<Tile>(p, keys, warp_row, query_rows);
    multiply_rows<Tile>(ds, values, warp_row, dout_rows);
    weights_and_gradients<Tile>(p, ds, query_rows, first_key + warp_row, scale, bias);
    combine_rows<Tile>(dv, p, dout_rows, first_column);
    combine_rows<Tile>(dk, ds, query_rows, first_column);
    store_facts(next, buffer ^ 1);
    __syncthreads();
  }
  wait_for_copies<0>();
  __syncthreads();
  const int warp_count = min(warp_rows, key_count - warp_row);
  if (warp_count <= 0) return;
  const std::int64_t out_row =
      (static_cast<std::int64_t>(head) * segments.count + segment) * rows + first_key + warp_row;
  if constexpr (chunks) {
    store_warp_rows_float(dkeys + out_row * d, dk, softmax_scale, first_column, warp_count, d);
    store_warp_rows_float(dvalues + out_row * d, dv, 1.0f, first_column, warp_count, d);
  } else {
    const float scales[2] = {softmax_scale, softmax_scale}, ones[2] = {1.0f, 1.0f};
    store_warp_rows<Tile>(dkeys + out_row * d, keys, warp_row, dk, scales, first_column, warp_count, d, d);
    store_warp_rows<Tile>(dvalues + out_row * d, values, warp_row, dv, ones, first_column, warp_count, d, d);
  }
}

// --- launches --------------------------------------------------------------------------------------------

template <class T, int D>
void MmaKernels<T, D>::forward(cudaStream_t stream, T* out, float* log_sum_exp, const Operands<T>& in,
                               const Problem& problem, std::int64_t heads) {
  using Tile = MmaTile<T, D>;
  launch(stream, mma_forward<Tile, T>, {heads, divide_up(problem.queries, own_rows)}, row_warps * warp_size,
         mma_forward_shared_bytes<Tile>(), out, log_sum_exp, in, problem);
}

template <class T, int D>
void MmaKernels<T, D>::query_gradient(cudaStream_t stream, T* dq, float* bias_parts, const Operands<T>& in,
                                      const OutputGradients<T>& gradients, const Problem& problem,
                                      std::int64_t heads) {
  using Tile = MmaTile<T, D>;
  launch(stream, mma_query_gradient<Tile, T>, {heads, divide_up(problem.queries, own_rows)},
         row_warps * warp_size, mma_query_gradient_shared_bytes<Tile>(), dq, bias_parts, in, gradients,
         problem);
}

template <class T, int D>
template <class Out>
void MmaKernels<T, D>::key_gradient(cudaStream_t stream, Out* dkeys, Out* dvalues, const Operands<T>& in,
                                    const OutputGradients<T>& gradients, const Problem& problem,
                                    const Segments& segments, std::int64_t heads) {
  using Tile = MmaTile<T, D>;
  const std::int64_t rows = std::is_same_v<Out, float> ? problem.chunks : problem.tokens;
  launch(stream, mma_key_gradient<Tile, Out, T>, {heads, divide_up(rows, own_rows), segments.count},
         Tile::key_threads, mma_key_gradient_shared_bytes<Tile>(), dkeys, dvalues, in, gradients, problem,
         segments);
}

}  // namespace flasheva::attention

// The kernels of one head dimension: a file each, so that they compile side by side.
#define FLASHEVA_INSTANTIATE_ATTENTION(T, D)                                                            \
  namespace flasheva::attention {                                                                       \
  template struct MmaKernels<T, D>;                                                                     \
  template void MmaKernels<T, D>::key_gradient<T>(cudaStream_t, T*, T*, const Operands<T>&,             \
                                                  const OutputGradients<T>&, const Problem&,            \
                                                  const Segments&, std::int64_t);                       \
  template void MmaKernels<T, D>::key_gradient<float>(cudaStream_t, float*, float*, const Operands<T>&, \
                                                      const OutputGradients<T>&, const Problem&,        \
                                                      const Segments&, std::int64_t);                   \
  }
