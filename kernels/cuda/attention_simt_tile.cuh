// Tiles of attention in float32 and float64 (attention_simt.cuh): their shape, and what 16 x 16 threads do
// with them in shared memory. Thread (y, x) holds rows y R .. y R + R - 1 and columns x, x + 16, ... of a
// product.
//
// D is the head dimension rounded up; elements behind the true one are 0 in shared memory.
#pragma once

#include "kernels/cuda/attention_problem.cuh"
#include "kernels/cuda/vector.cuh"

namespace flasheva::attention {

inline constexpr int side = 16, simt_threads = side * side;

template <class A, int D_, int query_tile_, int key_tile_>
struct SimtTile {
  using Element = A;
  static constexpr int D = D_, query_tile = query_tile_, key_tile = key_tile_;
  static constexpr int lanes = vector_width<A>;
  static constexpr int row = D + lanes;     // elements; neighbouring rows lie in different banks
  static constexpr int columns = D / side;  // of an output, held by a thread
};

// tile (rows, row) = rows first .. of source (count, d); 0 where there is none.
template <class Tile, int rows, class A = typename Tile::Element>
__device__ inline void load_rows(A* tile, const A* source, int count, std::int64_t stride, int d) {
  for (int i = static_cast<int>(threadIdx.x); i < rows * Tile::D; i += simt_threads) {
    const int r = i / Tile::D, c = i % Tile::D;
    tile[r * Tile::row + c] = r < count && c < d ? source[r * stride + c] : A(0);
  }
}

// keys, values = the rows of a source from `first` on.
template <class Tile, class A = typename Tile::Element>
__device__ inline void load_keys(A* keys, A* values, const Source<A>& source, int first, int count, int d) {
  const std::int64_t at = static_cast<std::int64_t>(first) * d;
  load_rows<Tile, Tile::key_tile>(keys, source.keys + at, count, d, d);
  load_rows<Tile, Tile::key_tile>(values, source.values + at, count, d, d);
}

// seen[r] = what query first + r sees, of tokens or of chunks. All that they see.
template <class Tile>
__device__ inline Rows load_seen(Rows (&seen)[Tile::query_tile], const Problem& problem, int first, int count,
                                 bool chunks) {
  __syncthreads();
  for (int r = static_cast<int>(threadIdx.x); r < Tile::query_tile; r += simt_threads)
    seen[r] = r < count ? problem.seen(first + r, chunks) : Rows{0, 0};
  __syncthreads();
  return {seen[0].first, seen[count - 1].end};
}

// sums[i][j] += a row y R + i  .  b row x + 16 j.
template <class Tile, int R, int C, class A = typename Tile::Element>
__device__ inline void multiply_rows(A (&sums)[R][C], const A* a, const A* b) {
  constexpr int lanes = Tile::lanes;
  const int x = static_cast<int>(threadIdx.x) % side, y = static_cast<int>(threadIdx.x) / side;
#pragma unroll 4
  for (int c = 0; c < Tile::D; c += lanes) {
    Vector<A, lanes> a_part[R], b_part[C];
#pragma unroll
    for (int i = 0; i < R; ++i) a_part[i] = load_vector<lanes>(a + (y * R + i) * Tile::row + c);
#pragma unroll
    for (int j = 0; j < C; ++j) b_part[j] = load_vector<lanes>(b + (x + side * j) * Tile::row + c);
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
      for (int j = 0; j < C; ++j)
#pragma unroll
        for (int l = 0; l < lanes; ++l) sums[i][j] += a_part[i].value[l] * b_part[j].value[l];
  }
}

// Where `width` weights of a row stand in shared memory.
template <class Tile, int width>
inline constexpr int weight_row = width + Tile::lanes;

// sums[i][...] += sum over j of weights[y R + i][j] rows[j]: columns x lanes .. of every 16 lanes.
template <class Tile, int R, int width, class A = typename Tile::Element>
__device__ inline void combine_rows(A (&sums)[R][Tile::columns], const A* weights, const A* rows) {
  constexpr int lanes = Tile::lanes, groups = Tile::columns / lanes;
  const int x = static_cast<int>(threadIdx.x) % side, y = static_cast<int>(threadIdx.x) / side;
#pragma unroll 4
  for (int j = 0; j < width; ++j) {
    A weight[R];
#pragma unroll
    for (int i = 0; i < R; ++i) weight[i] = weights[(y * R + i) * weight_row<Tile, width> + j];
#pragma unroll
    for (int g = 0; g < groups; ++g) {
      const auto part = load_vector<lanes>(rows + j * Tile::row + (g * side + x) * lanes);
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int l = 0; l < lanes; ++l) sums[i][g * lanes + l] += weight[i] * part.value[l];
    }
  }
}

// out rows y R + i (those below `count`) = sums * scale[i], in the columns of combine_rows().
template <class Tile, int R, class Out, class A = typename Tile::Element>
__device__ inline void store_rows(Out* out, const A (&sums)[R][Tile::columns], const A (&scale)[R], int count,
                                  std::int64_t stride, int d) {
  constexpr int lanes = Tile::lanes;
  const int x = static_cast<int>(threadIdx.x) % side, y = static_cast<int>(threadIdx.x) / side;
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int c = 0; c < Tile::columns; ++c) {
      const int column = (c / lanes * side + x) * lanes + c % lanes;
      if (y * R + i < count && column < d)
        out[(y * R + i) * stride + column] = static_cast<Out>(sums[i][c] * scale[i]);
    }
}

}  // namespace flasheva::attention
