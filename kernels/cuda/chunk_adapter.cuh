// The adapter of chunk summaries, on a tile of rows of chunk means, a block's four warps a quarter each:
//     linear             A(x) = W x + b
//     linear_layernorm   A(x) = w' * (z - mean z) / sqrt(variance z + 1e-5) + b',  z = W x + b
// A row of d <= 32 columns elements lies in a warp's registers, lane l having elements l, l + 32, ...
#pragma once

#include "kernels/cuda/chunk_scratch.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/ops.h"

namespace flasheva::summary {

inline constexpr double adapter_norm_eps = 1e-5;
inline constexpr int adapter_threads = adapter_warps * warp_size;

// Of an adapter; null where the variant has none. Without weight A is the identity.
template <class T>
struct AdapterParameters {
  const T *weight, *bias, *norm_weight, *norm_bias;
};

__device__ inline int lane_id() { return static_cast<int>(threadIdx.x) % warp_size; }

// A warp's rows, and its block's shared memory.
template <class A_, int columns_>
struct AdapterTile {
  using A = A_;
  static constexpr int columns = columns_, width = columns * warp_size;
  static constexpr int rows = columns <= 4 ? 2 : 1;            // of a warp
  static constexpr int block_rows = adapter_warps * rows;      // of a block
  static constexpr int slice = warp_size, stride = width + 1;  // of the weight; no two lanes share a bank
  static constexpr std::size_t shared_bytes = sizeof(A) * (block_rows * width + slice * stride);

  struct Rows {
    A value[rows][columns];
  };

  A *own, *weight;      // (rows, width), the warp's; (slice, stride), the block's
  int first, count, d;  // the warp's first row, and the number of all

  __device__ AdapterTile(int tile, int count, int d) : count(count), d(d) {
    const int warp = static_cast<int>(threadIdx.x) / warp_size;
    A* shared = reinterpret_cast<A*>(dynamic_shared());
    own = shared + warp * rows * width;
    weight = shared + block_rows * width;
    first = tile * block_rows + warp * rows;
  }

  // Calls body(at(row), column of the rows, i of the lane, j) for the lane's elements that exist, at(row)
  // once a row.
  template <class At, class Body>
  __device__ void for_elements(const At& at, const Body& body) const {
#pragma unroll
    for (int i = 0; i < rows; ++i) {
      if (first + i >= count) break;
      const auto place = at(static_cast<std::int64_t>(first + i));
#pragma unroll
      for (int j = 0; j < columns; ++j)
        if (lane_id() + j * warp_size < d) body(place, lane_id() + j * warp_size, i, j);
    }
  }
  template <class Body>
  __device__ void for_elements(const Body& body) const {
    for_elements([](std::int64_t row) { return row; }, body);
  }

  __device__ Rows load(const A* in) const {
    Rows out{};
    for_elements([&](std::int64_t row, int column, int i, int j) { out.value[i][j] = in[row * d + column]; });
    return out;
  }
  __device__ void store(A* out, const Rows& x) const {
    for_elements([&](std::int64_t row, int column, int i, int j) { out[row * d + column] = x.value[i][j]; });
  }

  // Shared memory = x, for all lanes of the warp.
  __device__ void share(const Rows& x) const {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < rows; ++i)
#pragma unroll
      for (int j = 0; j < columns; ++j) own[i * width + lane_id() + j * warp_size] = x.value[i][j];
    __syncwarp();
  }
};

// x W^T, or x W, of the rows x; all threads of the block take part. The weight (d, d) goes through shared
// memory `slice` rows of the inner dimension at a time.
// A call of its own: copies of it take the compiler long.
template <bool transposed, class Tile, class T>
[[gnu::noinline]] __device__ typename Tile::Rows multiply(Tile tile, typename Tile::Rows x, const T* weight) {
  using A = typename Tile::A;
  constexpr int slice = Tile::slice, width = Tile::width, columns = Tile::columns;
  tile.share(x);
  typename Tile::Rows out{};
  for (int first = 0; first < tile.d; first += slice) {
    __syncthreads();
    for (int e = static_cast<int>(threadIdx.x); e < slice * width; e += adapter_threads) {
      const int k = transposed ? e % slice : e / width, o = transposed ? e / slice : e % width;
      const bool inside = first + k < tile.d && o < tile.d;
      const int at = transposed ? o * tile.d + first + k : (first + k) * tile.d + o;
      tile.weight[k * Tile::stride + o] = inside ? widened(weight[at]) : A{0};
    }
    __syncthreads();
    for (int k = 0; k < slice; k += 4) {
      A w[4][columns];
#pragma unroll
      for (int part = 0; part < 4; ++part)
#pragma unroll
        for (int j = 0; j < columns; ++j)
          w[part][j] = tile.weight[(k + part) * Tile::stride + lane_id() + j * warp_size];
#pragma unroll
      for (int i = 0; i < Tile::rows; ++i) {
        const auto in = load_vector<4>(tile.own + i * width + first + k);
#pragma unroll
        for (int part = 0; part < 4; ++part)
#pragma unroll
          for (int j = 0; j < columns; ++j) out.value[i][j] += in.value[part] * w[part][j];
      }
    }
  }
  return out;
}

// Brings rows to mean 0 and variance 1; gives each row's rstd.
template <class Tile>
__device__ Vector<typename Tile::A, Tile::rows> normalize(const Tile& tile, typename Tile::Rows& z) {
  using A = typename Tile::A;
  const A d = static_cast<A>(tile.d);
  Vector<A, Tile::rows> rstd;
#pragma unroll
  for (int i = 0; i < Tile::rows; ++i) {
    A sum = 0, squares = 0;
#pragma unroll
    for (int j = 0; j < Tile::columns; ++j) sum += z.value[i][j];  // 0 beyond d
    const A mean = warp_sum(sum) / d;
#pragma unroll
    for (int j = 0; j < Tile::columns; ++j) {
      z.value[i][j] -= lane_id() + j * warp_size < tile.d ? mean : A{0};
      squares += z.value[i][j] * z.value[i][j];
    }
    rstd.value[i] = 1 / sqrt(warp_sum(squares) / d + static_cast<A>(adapter_norm_eps));
#pragma unroll
    for (int j = 0; j < Tile::columns; ++j) z.value[i][j] *= rstd.value[i];
  }
  return rstd;
}

// W x + b
template <class Tile, class T>
__device__ typename Tile::Rows affine(const Tile& tile, const typename Tile::Rows& x,
                                      const AdapterParameters<T>& p) {
  auto z = multiply<true>(tile, x, p.weight);
  tile.for_elements(
      [&](std::int64_t, int column, int i, int j) { z.value[i][j] += widened(p.bias[column]); });
  return z;
}

template <class Tile, class T>
__device__ typename Tile::Rows adapter_forward(const Tile& tile, const typename Tile::Rows& x,
                                               const AdapterParameters<T>& p) {
  if (p.weight == nullptr) return x;
  auto z = affine(tile, x, p);
  if (p.norm_weight == nullptr) return z;
  normalize(tile, z);
  tile.for_elements([&](std::int64_t, int column, int i, int j) {
    z.value[i][j] = z.value[i][j] * widened(p.norm_weight[column]) + widened(p.norm_bias[column]);
  });
  return z;
}

// The lane's sums over rows, for the gradients of what is added and multiplied to each column.
template <class Tile>
struct ColumnSums {
  using A = typename Tile::A;
  A bias[Tile::columns] = {}, norm_weight[Tile::columns] = {}, norm_bias[Tile::columns] = {};
};

// dout becomes the gradient of z = W x + b, whose normalized rows are computed again from x.
template <class Tile, class T>
__device__ void normalize_backward(const Tile& tile, typename Tile::Rows& dout, ColumnSums<Tile>& sums,
                                   const typename Tile::Rows& x, const AdapterParameters<T>& p) {
  using A = typename Tile::A;
  auto normalized = affine(tile, x, p);
  const auto rstd = normalize(tile, normalized);
  tile.for_elements([&](std::int64_t, int column, int i, int j) {
    sums.norm_weight[j] += dout.value[i][j] * normalized.value[i][j];
    sums.norm_bias[j] += dout.value[i][j];
    dout.value[i][j] *= widened(p.norm_weight[column]);
  });
#pragma unroll
  for (int i = 0; i < Tile::rows; ++i) {
    A mean = 0, projection = 0;  // of the gradient that reaches `normalized`, and its part along it
#pragma unroll
    for (int j = 0; j < Tile::columns; ++j) {
      mean += dout.value[i][j];
      projection += dout.value[i][j] * normalized.value[i][j];
    }
    mean = warp_sum(mean) / static_cast<A>(tile.d);
    projection = warp_sum(projection) / static_cast<A>(tile.d);
#pragma unroll
    for (int j = 0; j < Tile::columns; ++j)
      dout.value[i][j] = lane_id() + j * warp_size < tile.d
                             ? (dout.value[i][j] - mean - normalized.value[i][j] * projection) * rstd.value[i]
                             : A{0};
  }
}

}  // namespace flasheva::summary
