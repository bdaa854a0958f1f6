// Tiles of attention on tensor cores (attention_mma.cuh): their shape, and what warps do with them in shared
// memory.
//
// D is the head dimension rounded up; elements behind the true one are 0 in shared memory.
#pragma once

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/tensor_core.cuh"

namespace flasheva::attention {

inline constexpr int warp_rows = 16, row_warps = 4, own_rows = warp_rows * row_warps;
static_assert(own_rows == mma_query_tile);

template <class T_, int D_>
struct MmaTile {
  using T = T_;  // bf16 or f16
  static constexpr int D = D_;
  static constexpr int row = D + 8;     // elements; eight neighbouring rows lie in different banks
  static constexpr int steps = D / 16;  // of a product over the head dimension
  // Rows of a tile that streams: as many as the smallest GPUs have shared memory for (99 KB a block).
  static constexpr int forward_keys = D <= 128 ? 64 : 32;
  static constexpr int backward_keys = D <= 80 ? 64 : D <= 128 ? 32 : 16;
  static constexpr int queries = D <= 64 ? 64 : D <= 128 ? 32 : 16;
  static constexpr int column_parts = D <= 128 ? 1 : 2;  // warps that share the columns of dk and dv
  static constexpr int key_threads = row_warps * column_parts * warp_size;
};

// tile (rows, Tile::row) = rows 0 .. count - 1 of source (count, d); zeros where there is none. Asynchronous
// where rows are aligned.
template <class Tile, int rows, int threads, class T = typename Tile::T>
__device__ inline void load_tile(T* tile, const T* source, int count, std::int64_t stride, int d) {
  constexpr int width = 8, pieces = Tile::D / width, copies = rows * pieces;
  const int thread = static_cast<int>(threadIdx.x);
  if (d % width == 0) {
#pragma unroll  // a fixed number, so that addresses are a thread's first one and constants
    for (int k = 0; k < divide_up(copies, threads); ++k) {
      const unsigned i = threadIdx.x + k * threads;
      if (copies % threads != 0 && i >= copies) break;
      const int r = static_cast<int>(i / pieces), c = static_cast<int>(i % pieces) * width;
      const bool there = r < count && c < d;
      copy_async(tile + r * Tile::row + c, there ? source + r * stride + c : source, there);
    }
  } else {
#pragma unroll 1  // rare; unrolled, its registers would cost the forward pass at D 64 its fourth block
    for (int i = thread; i < rows * Tile::D; i += threads) {
      const int r = i / Tile::D, c = i % Tile::D;
      tile[r * Tile::row + c] = r < count && c < d ? source[r * stride + c] : T(0.0f);
    }
  }
}

// 16 x 16 elements at (row, column) as a left factor.
template <class Tile, class T = typename Tile::T>
__device__ inline void load_left(std::uint32_t (&a)[4], const T* tile, int row, int column) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  load_matrices(a, tile + (row + lane % 16) * Tile::row + column + lane / 16 * 8);
}

// sums (16, 8 n) += the warp's rows of `left` . rows of `right`: both (rows, D).
template <class Tile, int n, class T = typename Tile::T>
__device__ inline void multiply_rows(float (&sums)[n][4], const T* left, int left_row, const T* right) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const T* right_row = right + (lane % 8 + lane / 16 * 8) * Tile::row + lane / 8 % 2 * 8;
#pragma unroll(Tile::steps <= 8 ? Tile::steps : 4)  // more at once take more registers than there are
  for (int step = 0; step < Tile::steps; ++step) {
    std::uint32_t a[4];
    load_left<Tile>(a, left, left_row, step * 16);
#pragma unroll
    for (int j = 0; j < n; j += 2) {
      std::uint32_t b[4];
      load_matrices(b, right_row + j * 8 * Tile::row + step * 16);
      multiply_add<T>(sums[j], a, b[0], b[1]);
      multiply_add<T>(sums[j + 1], a, b[2], b[3]);
    }
  }
}

// sums (16, 8 m) += weights (16, 8 n) rows: columns first_column on of the 8 n rows of a tile.
template <class Tile, int n, int m, class T = typename Tile::T>
__device__ inline void combine_rows(float (&sums)[m][4], const float (&weights)[n][4], const T* rows,
                                    int first_column) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const T* own = rows + lane % 16 * Tile::row + lane / 16 * 8 + first_column;
#pragma unroll
  for (int j = 0; j < n; j += 2) {
    const std::uint32_t a[4] = {pack<T>(weights[j][0], weights[j][1]), pack<T>(weights[j][2], weights[j][3]),
                                pack<T>(weights[j + 1][0], weights[j + 1][1]),
                                pack<T>(weights[j + 1][2], weights[j + 1][3])};
#pragma unroll
    for (int c = 0; c < m; c += 2) {
      std::uint32_t b[4];
      load_matrices_transposed(b, own + j * 8 * Tile::row + c * 8);
      multiply_add<T>(sums[c], a, b[0], b[1]);
      multiply_add<T>(sums[c + 1], a, b[2], b[3]);
    }
  }
}

// out rows 0 .. count - 1 (stride, d) = the warp's 16 rows, rounded: sums * scale (of rows g and g + 8),
// by way of its rows of `tile`, so that 16 bytes leave at once.
template <class Tile, int m, class T = typename Tile::T>
__device__ inline void store_warp_rows(T* out, T* tile, int tile_row, const float (&sums)[m][4],
                                       const float (&scale)[2], int first_column, int count,
                                       std::int64_t stride, int d) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int c = 0; c < m; ++c)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      *reinterpret_cast<std::uint32_t*>(tile + (tile_row + g + 8 * half) * Tile::row + first_column + c * 8 +
                                        2 * t) =
          pack<T>(sums[c][2 * half] * scale[half], sums[c][2 * half + 1] * scale[half]);
  __syncwarp();
  constexpr int width = 8;
  if (d % width == 0) {
    for (int i = lane; i < warp_rows * m; i += warp_size) {
      const int r = i / m, column = first_column + i % m * width;
      if (r < count && column < d)
        *reinterpret_cast<uint4*>(out + r * stride + column) =
            *reinterpret_cast<const uint4*>(tile + (tile_row + r) * Tile::row + column);
    }
  } else {
    for (int i = lane; i < warp_rows * m * width; i += warp_size) {
      const int r = i / (m * width), column = first_column + i % (m * width);
      if (r < count && column < d) out[r * stride + column] = tile[(tile_row + r) * Tile::row + column];
    }
  }
}

// out rows 0 .. count - 1 (d) = the warp's 16 rows in float32.
template <int m>
__device__ inline void store_warp_rows_float(float* out, const float (&sums)[m][4], float scale,
                                             int first_column, int count, int d) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int c = 0; c < m; ++c)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = g + i / 2 * 8, column = first_column + c * 8 + 2 * t + i % 2;
      if (r < count && column < d) out[static_cast<std::int64_t>(r) * d + column] = sums[c][i] * scale;
    }
}

}  // namespace flasheva::attention
