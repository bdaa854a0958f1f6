// A warp at work on the P rows of a chunk (P, d): dot products with each row, weighted sums of the rows, and
// softmax over P numbers in shared memory.
#pragma once

#include <type_traits>

#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/warp.cuh"

namespace flasheva::summary {

// How a warp holds rows: `lanes` lanes next to each other have one row, so that 32 / lanes rows are taken at
// once. A lane has `vectors` vectors of `width` elements, `lanes` vectors apart.
template <class T_, int width_, int lanes_, int vectors_>
struct RowLayout {
  using T = T_;
  using A = Accumulator<T>;
  static constexpr int width = width_, lanes = lanes_, vectors = vectors_;
  static constexpr int rows = warp_size / lanes, elements = width * vectors;
  static constexpr int rows_in_flight = vectors == 1 ? 4 : 1;  // of a lane
  // Blocks a multiprocessor for which the compiler's registers suffice without spills.
  static constexpr int resident_blocks = vectors > 1 ? 2 : sizeof(T) == sizeof(float) ? 4 : 3;

  static __device__ int row() { return static_cast<int>(threadIdx.x) % warp_size / lanes; }
  static __device__ bool leads() { return threadIdx.x % lanes == 0; }
  static __device__ int column(int vector) {
    return (vector * lanes + static_cast<int>(threadIdx.x) % lanes) * width;
  }
};

// Calls body(layout) with the layout for rows of d <= 256 elements of T; `vectorised` where every one is
// aligned to 16 bytes. float64, float16 and rows above 128 elements (64 of float32) go element by element.
// Few of them: each takes the compiler a while.
template <class T, class Body>
void dispatch_layout(int d, bool vectorised, const Body& body) {
  if constexpr (std::is_same_v<T, float> || std::is_same_v<T, bf16>) {
    constexpr int width = vector_width<T>;
    if (vectorised && d <= 64) return body(RowLayout<T, width, 64 / width, 1>{});
    if constexpr (width == 8)
      if (vectorised && d <= 128) return body(RowLayout<T, width, 16, 1>{});
  }
  return body(RowLayout<T, 1, 32, 8>{});
}

// A lane's elements of a row.
template <class L>
struct Slice {
  typename L::A value[L::elements];
};

// Elements beyond d are 0.
template <class L, class X>
__device__ inline Slice<L> load_slice(const X* row, int d) {
  Slice<L> slice{};
#pragma unroll
  for (int v = 0; v < L::vectors; ++v) {
    if (L::column(v) >= d) continue;
    const auto loaded = load_vector<L::width>(row + L::column(v));
#pragma unroll
    for (int j = 0; j < L::width; ++j)
      slice.value[v * L::width + j] = static_cast<typename L::A>(loaded.value[j]);
  }
  return slice;
}

template <class L, class X>
__device__ inline void store_slice(X* row, const Slice<L>& slice, int d) {
#pragma unroll
  for (int v = 0; v < L::vectors; ++v) {
    if (L::column(v) >= d) continue;
    Vector<X, L::width> stored;
#pragma unroll
    for (int j = 0; j < L::width; ++j) stored.value[j] = static_cast<X>(slice.value[v * L::width + j]);
    store_vector(row + L::column(v), stored);
  }
}

// sum += x, of each lane's elements; sum += a x; x *= a.
template <class L>
__device__ inline void add(Slice<L>& sum, const Slice<L>& x) {
#pragma unroll
  for (int i = 0; i < L::elements; ++i) sum.value[i] += x.value[i];
}
template <class L>
__device__ inline void add_scaled(Slice<L>& sum, typename L::A a, const Slice<L>& x) {
#pragma unroll
  for (int i = 0; i < L::elements; ++i) sum.value[i] += a * x.value[i];
}
template <class L>
__device__ inline void scale(Slice<L>& x, typename L::A a) {
#pragma unroll
  for (int i = 0; i < L::elements; ++i) x.value[i] *= a;
}

// The sum over the groups of lanes, in every one of them.
template <class L>
__device__ inline void sum_groups(Slice<L>& sum) {
#pragma unroll
  for (int mask = L::lanes; mask < warp_size; mask *= 2)
#pragma unroll
    for (int i = 0; i < L::elements; ++i) sum.value[i] += __shfl_xor_sync(all_lanes, sum.value[i], mask);
}

// The lane's share of the dot product.
template <class L>
__device__ inline typename L::A dot(const Slice<L>& x, const Slice<L>& y) {
  typename L::A sum = 0;
#pragma unroll
  for (int i = 0; i < L::elements; ++i) sum += x.value[i] * y.value[i];
  return sum;
}

// out (count) = the sum over a row's lanes of share(row m, m), for all rows. `rows` are d elements apart.
template <class L, class Share>
__device__ inline void weigh_rows(typename L::A* out, const typename L::T* rows, int count, int d,
                                  const Share& share) {
#pragma unroll(L::rows_in_flight)
  for (int first = 0; first < count; first += L::rows) {
    const int m = first + L::row();
    typename L::A sum = 0;
    if (m < count) sum = share(load_slice<L>(rows + static_cast<std::int64_t>(m) * d, d), m);
    sum = warp_sum<L::lanes>(sum);
    if (m < count && L::leads()) out[m] = sum;
  }
  __syncwarp();
}

// The sum of weight(m) times row m, in every group of lanes.
template <class L, class Weight>
__device__ inline Slice<L> combine_rows(const typename L::T* rows, int count, int d, const Weight& weight) {
  Slice<L> sum{};
#pragma unroll(L::rows_in_flight)
  for (int m = L::row(); m < count; m += L::rows) {
    const Slice<L> row = load_slice<L>(rows + static_cast<std::int64_t>(m) * d, d);
    add_scaled(sum, weight(m), row);
  }
  sum_groups(sum);
  __syncwarp();  // weight() may have read what the next row's lanes write
  return sum;
}

// x (count) = softmax(scale x).
template <class A>
__device__ inline void softmax(A* x, int count, A scale) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  A largest = -INFINITY, sum = 0;
  for (int m = lane; m < count; m += warp_size) largest = x[m] > largest ? x[m] : largest;
  largest = warp_max(largest);
  for (int m = lane; m < count; m += warp_size) sum += x[m] = exp(scale * (x[m] - largest));
  sum = 1 / warp_sum(sum);
  for (int m = lane; m < count; m += warp_size) x[m] *= sum;
  __syncwarp();
}

// p (count) = softmax(scale x) and its gradient dp: dp becomes the gradient of x.
template <class A>
__device__ inline void softmax_backward(A* dp, const A* p, int count, A scale) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  A mean = 0;
  for (int m = lane; m < count; m += warp_size) mean += p[m] * dp[m];
  mean = warp_sum(mean);
  for (int m = lane; m < count; m += warp_size) dp[m] = scale * (p[m] * (dp[m] - mean));
  __syncwarp();
}

}  // namespace flasheva::summary
