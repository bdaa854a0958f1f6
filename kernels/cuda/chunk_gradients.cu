// Sums over chunks for the gradients of parameters. Each share of the chunks has sums of its own, which are
// added up in order: the same result on every run.
#include "kernels/cuda/chunk_gradients.h"
#include "kernels/cuda/vector.cuh"

namespace flasheva::summary {

namespace {

constexpr int threads = 128;
constexpr int tile = 32;  // of a weight's rows and columns, and rows of dz and in that are taken at a time

// One block a tile of the weight and a share; a thread has 2 x 4 of the tile's elements.
template <class A>
__global__ void __launch_bounds__(threads)
    multiply_shares_kernel(A* sums, const A* dz, const A* in, int count, int d, int tiles) {
  __shared__ Vector<A, 4> dz_rows[tile][tile / 4], in_rows[tile][tile / 4];
  const int tid = static_cast<int>(threadIdx.x), share = static_cast<int>(blockIdx.y),
            shares = static_cast<int>(gridDim.y);
  const int first_o = static_cast<int>(blockIdx.x) / tiles * tile,
            first_i = static_cast<int>(blockIdx.x) % tiles * tile;
  const int o = tid / 8 * 2, i = tid % 8 * 4;
  const int begin = static_cast<int>(static_cast<std::int64_t>(count) * share / shares),
            end = static_cast<int>(static_cast<std::int64_t>(count) * (share + 1) / shares);
  A sum[2][4] = {};
  for (int first = begin; first < end; first += tile) {
    __syncthreads();
    for (int e = tid; e < tile * tile; e += threads) {
      const int r = e / tile, c = e % tile;
      const std::int64_t at = static_cast<std::int64_t>(first + r) * d;
      dz_rows[r][c / 4].value[c % 4] = first + r < end && first_o + c < d ? dz[at + first_o + c] : A{0};
      in_rows[r][c / 4].value[c % 4] = first + r < end && first_i + c < d ? in[at + first_i + c] : A{0};
    }
    __syncthreads();
#pragma unroll 8
    for (int r = 0; r < tile; ++r) {
      const auto a = load_vector<2>(&dz_rows[r][o / 4].value[o % 4]);
      const auto b = in_rows[r][i / 4];
#pragma unroll
      for (int x = 0; x < 2; ++x)
#pragma unroll
        for (int y = 0; y < 4; ++y) sum[x][y] += a.value[x] * b.value[y];
    }
  }
  A* out = sums + static_cast<std::int64_t>(share) * d * d;
  for (int x = 0; x < 2; ++x)
    for (int y = 0; y < 4; ++y)
      if (first_o + o + x < d && first_i + i + y < d)
        out[(first_o + o + x) * d + first_i + i + y] = sum[x][y];
}

// One block a head and a share of its chunks of all sequences.
template <class A>
__global__ void __launch_bounds__(threads)
    sum_heads_kernel(A* sums, const A* rows, int heads, int chunks, int chunks_of_head, int d) {
  const int h = static_cast<int>(blockIdx.x), share = static_cast<int>(blockIdx.y),
            shares = static_cast<int>(gridDim.y);
  const auto first_of = [=](int s) {
    return static_cast<int>(static_cast<std::int64_t>(chunks_of_head) * s / shares);
  };
  for (int i = static_cast<int>(threadIdx.x); i < d; i += threads) {
    A sum = 0;
#pragma unroll 8
    for (int c = first_of(share); c < first_of(share + 1); ++c)
      sum += rows[(static_cast<std::int64_t>(c / chunks * heads + h) * chunks + c % chunks) * d + i];
    sums[(static_cast<std::int64_t>(share) * heads + h) * d + i] = sum;
  }
}

// What GradientSums adds.
template <class A>
struct DeviceSums {
  struct Sum {
    A* gradient;
    const A* sums;
    int size, shares;
    std::int64_t stride;
  };
  Sum sum[GradientSums::most];
};

// A warp adds a quarter of the shares of 32 elements.
template <class A>
__global__ void __launch_bounds__(threads) add_shares_kernel(DeviceSums<A> all) {
  constexpr int warps = threads / warp_size;
  __shared__ A parts[warps][warp_size];
  const typename DeviceSums<A>::Sum x = all.sum[blockIdx.y];
  const int warp = static_cast<int>(threadIdx.x) / warp_size,
            lane = static_cast<int>(threadIdx.x) % warp_size;
  const int i = static_cast<int>(blockIdx.x) * warp_size + lane;
  A sum = 0;
  if (i < x.size)
#pragma unroll 16
    for (int share = x.shares * warp / warps; share < x.shares * (warp + 1) / warps; ++share)
      sum += x.sums[share * x.stride + i];
  parts[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || i >= x.size) return;
  for (int w = 1; w < warps; ++w) sum += parts[w][lane];
  x.gradient[i] += sum;
}

}  // namespace

void multiply_shares(cudaStream_t stream, Tensor sums, Tensor dz, Tensor in) {
  const int count = static_cast<int>(dz.dim(0)), d = static_cast<int>(dz.dim(1)),
            tiles = static_cast<int>(divide_up(d, tile));
  const Grid grid{tiles * tiles, weight_shares(count)};
  dispatch_accumulator(dz.dtype, [&]<class A>(A) {
    launch(stream, multiply_shares_kernel<A>, grid, threads, 0, sums.as<A>(), dz.as<A>(), in.as<A>(), count,
           d, tiles);
  });
}

void sum_heads(cudaStream_t stream, Tensor sums, Tensor rows) {
  const int heads = static_cast<int>(rows.dim(1)), chunks = static_cast<int>(rows.dim(2)),
            of_head = static_cast<int>(rows.dim(0)) * chunks, d = static_cast<int>(rows.dim(3));
  const Grid grid{heads, head_shares(of_head)};
  dispatch_accumulator(rows.dtype, [&]<class A>(A) {
    launch(stream, sum_heads_kernel<A>, grid, threads, 0, sums.as<A>(), rows.as<A>(), heads, chunks, of_head,
           d);
  });
}

void GradientSums::add(Tensor gradient, Tensor sums, std::int64_t first) {
  if (gradient) sums_[count_++] = {gradient, sums, first};
}

void GradientSums::start(cudaStream_t stream) const {
  if (count_ == 0) return;
  dispatch_accumulator(sums_[0].gradient.dtype, [&]<class A>(A) {
    DeviceSums<A> all{};
    std::int64_t largest = 0;
    for (int i = 0; i < count_; ++i) {
      const auto& [gradient, sums, first] = sums_[i];
      all.sum[i] = {gradient.as<A>(), sums.as<A>() + first, static_cast<int>(gradient.size()),
                    static_cast<int>(sums.dim(0)), sums.size() / sums.dim(0)};
      largest = std::max(largest, gradient.size());
    }
    launch(stream, add_shares_kernel<A>, {divide_up(largest, warp_size), count_}, threads, 0, all);
  });
}

}  // namespace flasheva::summary
