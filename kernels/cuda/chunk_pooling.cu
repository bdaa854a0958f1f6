// The passes over tokens of chunk summaries (ops.h), one warp a chunk:
//     kbar, qbar = means of k, q; adapter learned: kbar = sum of softmax(mu . k_m) k_m
//     p = softmax of s (omega . k_m - |k_m|^2 / 2)        beta = sum of p_m v_m,   s = 1/sqrt(d)
// and back:
//     dv_m += p_m dbeta      dlogit = s p (dp - sum of p dp),  dp_m = dbeta . v_m
//     domega = sum of dlogit_m k_m      dk_m += dlogit_m (omega - k_m) + d(kbar) / P
#include "kernels/cuda/chunk_pooling.h"
#include "kernels/cuda/chunk_rows.cuh"

namespace flasheva::summary {

namespace {

constexpr int threads = 128, warps = threads / warp_size;

// The running warp's chunk and its room for `arrays` times P numbers.
template <class A>
struct WarpsChunk {
  int index;
  ChunkPlace place;
  A* shared;

  __device__ WarpsChunk(const Chunks& chunks, int arrays) : place{} {
    const int warp = static_cast<int>(threadIdx.x) / warp_size;
    index = static_cast<int>(blockIdx.x) * warps + warp;
    if (index < chunks.count) place = chunks.at(index);
    shared = reinterpret_cast<A*>(dynamic_shared()) + static_cast<std::int64_t>(warp) * arrays * chunks.chunk;
  }

  // Its row of a scratch array (count, d).
  template <class X>
  __device__ X* row(X* rows, int d) const {
    return rows + static_cast<std::int64_t>(index) * d;
  }
};

// All pointers at rows of d elements that are aligned to whole vectors of T; wider accumulators too.
template <class T>
bool vectorised(int d, std::initializer_list<Tensor> tensors) {
  bool aligned = d % vector_width<T> == 0;
  for (const Tensor& x : tensors)
    aligned = aligned && aligned_to(x.data, vector_width<T> * size_in_bytes(x.dtype));
  return aligned;
}

// --- forward ----------------------------------------------------------------------------------------------

// weights (P) = softmax(mu . k_m)
template <class L>
__device__ void weigh_keys(typename L::A* weights, const Slice<L>& mu, const typename L::T* k, int P, int d) {
  weigh_rows<L>(weights, k, P, d, [&](const Slice<L>& row, int) { return dot(mu, row); });
  softmax(weights, P, typename L::A{1});
}

// weights (P) = softmax of s (omega . k_m - |k_m|^2 / 2) = s (omega - k_m / 2) . k_m
template <class L>
__device__ void weigh_values(typename L::A* weights, const Slice<L>& omega, const typename L::T* k, int P,
                             int d) {
  using A = typename L::A;
  weigh_rows<L>(weights, k, P, d, [&](const Slice<L>& row, int) {
    A sum = 0;
#pragma unroll
    for (int i = 0; i < L::elements; ++i) sum += (omega.value[i] - row.value[i] * A(0.5)) * row.value[i];
    return sum;
  });
  softmax(weights, P, 1 / sqrt(static_cast<A>(d)));
}

template <class L, class T = typename L::T, class A = typename L::A>
__device__ void store_mean(A* out, const T* rows, int P, int d) {
  Slice<L> mean = combine_rows<L>(rows, P, d, [](int) { return A{1}; });
#pragma unroll
  for (int i = 0; i < L::elements; ++i) mean.value[i] /= static_cast<A>(P);
  if (L::row() == 0) store_slice<L>(out, mean, d);
}

template <class L, class T = typename L::T, class A = typename L::A>
__global__ void __launch_bounds__(threads)
    pool_keys_kernel(A* kbar, A* qbar, const T* __restrict__ q, const T* __restrict__ k,
                     const T* __restrict__ mu, Chunks chunks) {
  const WarpsChunk<A> own(chunks, 1);
  if (!own.place.present) return;
  const int P = chunks.chunk, d = chunks.head_dim;
  const T* keys = k + own.place.keys;
  if (mu != nullptr) {
    A* weights = own.shared;
    weigh_keys<L>(weights, load_slice<L>(mu + own.place.head * d, d), keys, P, d);
    const Slice<L> sum = combine_rows<L>(keys, P, d, [=](int m) { return weights[m]; });
    if (L::row() == 0) store_slice<L>(own.row(kbar, d), sum, d);
  } else {
    store_mean<L>(own.row(kbar, d), keys, P, d);
  }
  if (qbar != nullptr) store_mean<L>(own.row(qbar, d), q + own.place.queries, P, d);
}

template <class L, class T = typename L::T, class A = typename L::A>
__global__ void __launch_bounds__(threads)
    pool_values_kernel(T* beta, const A* __restrict__ omega, const T* __restrict__ k, const T* __restrict__ v,
                       Chunks chunks) {
  const WarpsChunk<A> own(chunks, 1);
  if (!own.place.present) return;
  const int P = chunks.chunk, d = chunks.head_dim;
  A* weights = own.shared;
  weigh_values<L>(weights, load_slice<L>(own.row(omega, d), d), k + own.place.keys, P, d);
  const Slice<L> sum = combine_rows<L>(v + own.place.keys, P, d, [=](int m) { return weights[m]; });
  if (L::row() == 0) store_slice<L>(beta + own.place.summary, sum, d);
}

// --- backward ---------------------------------------------------------------------------------------------

template <class L, class T = typename L::T, class A = typename L::A>
__global__ void __launch_bounds__(threads)
    pool_values_backward_kernel(T* dv, A* dlogits, A* domega, const T* __restrict__ dbeta,
                                const A* __restrict__ omega, const T* __restrict__ k, const T* __restrict__ v,
                                Chunks chunks) {
  const WarpsChunk<A> own(chunks, 2);
  if (!own.place.present) return;
  const int P = chunks.chunk, d = chunks.head_dim;
  const T* keys = k + own.place.keys;
  A *p = own.shared, *dp = p + P;
  weigh_values<L>(p, load_slice<L>(own.row(omega, d), d), keys, P, d);
  const Slice<L> dout = load_slice<L>(dbeta + own.place.summary, d);
  weigh_rows<L>(dp, v + own.place.keys, P, d, [&](const Slice<L>& row, int m) {
    const A weight = p[m];
    add_to_row<L>(dv + own.place.keys + static_cast<std::int64_t>(m) * d, d,
                  [&](int i) { return weight * dout.value[i]; });
    return dot(dout, row);
  });
  softmax_backward(dp, p, P, 1 / sqrt(static_cast<A>(d)));
  for (int m = static_cast<int>(threadIdx.x) % warp_size; m < P; m += warp_size)
    own.row(dlogits, P)[m] = dp[m];
  const Slice<L> sum = combine_rows<L>(keys, P, d, [=](int m) { return dp[m]; });
  if (L::row() == 0) store_slice<L>(own.row(domega, d), sum, d);
}

template <class T>
struct KeysBackward {
  using A = Accumulator<T>;
  T *dq, *dk;
  A* dmu;
  const A *dkbar, *dqbar, *dlogits, *omega;
  const T *k, *mu;
};

// dk_m += dlogit_m (omega - k_m) + a_m dkbar + b_m mu: the rows' weights in kbar, and the gradient of mu .
// k_m.
template <class L, class T = typename L::T, class A = typename L::A, class Share>
__device__ void add_key_gradients(const KeysBackward<T>& x, const WarpsChunk<A>& own, const Chunks& chunks,
                                  const Share& pool_share) {
  const int P = chunks.chunk, d = chunks.head_dim;
  const Slice<L> omega = load_slice<L>(own.row(x.omega, d), d);
  for (int m = L::row(); m < P; m += L::rows) {
    const std::int64_t at = own.place.keys + static_cast<std::int64_t>(m) * d;
    const Slice<L> key = load_slice<L>(x.k + at, d);
    const A dlogit = own.row(x.dlogits, P)[m];
    add_to_row<L>(x.dk + at, d,
                  [&](int i) { return dlogit * (omega.value[i] - key.value[i]) + pool_share(m, i); });
  }
}

// Adapter learned.
template <class L, class T = typename L::T, class A = typename L::A>
__device__ void pool_learned_backward(const KeysBackward<T>& x, const WarpsChunk<A>& own,
                                      const Chunks& chunks) {
  const int P = chunks.chunk, d = chunks.head_dim;
  const T* keys = x.k + own.place.keys;
  A *pool = own.shared, *dpool = pool + P;
  const Slice<L> mu = load_slice<L>(x.mu + own.place.head * d, d),
                 dkbar = load_slice<L>(own.row(x.dkbar, d), d);
  weigh_keys<L>(pool, mu, keys, P, d);
  weigh_rows<L>(dpool, keys, P, d, [&](const Slice<L>& row, int) { return dot(dkbar, row); });
  softmax_backward(dpool, pool, P, A{1});
  const Slice<L> dmu = combine_rows<L>(keys, P, d, [=](int m) { return dpool[m]; });
  if (L::row() == 0) store_slice<L>(own.row(x.dmu, d), dmu, d);
  add_key_gradients<L>(x, own, chunks,
                       [&](int m, int i) { return pool[m] * dkbar.value[i] + dpool[m] * mu.value[i]; });
}

template <class L, class T = typename L::T, class A = typename L::A>
__global__ void __launch_bounds__(threads) pool_keys_backward_kernel(KeysBackward<T> x, Chunks chunks) {
  const WarpsChunk<A> own(chunks, 2);
  if (!own.place.present) return;
  if (x.mu != nullptr) return pool_learned_backward<L>(x, own, chunks);
  const int P = chunks.chunk, d = chunks.head_dim;
  const A share = 1 / static_cast<A>(P);
  const Slice<L> dkbar = load_slice<L>(own.row(x.dkbar, d), d);
  add_key_gradients<L>(x, own, chunks, [&](int, int i) { return share * dkbar.value[i]; });
  if (x.dqbar == nullptr) return;
  const Slice<L> dqbar = load_slice<L>(own.row(x.dqbar, d), d);
  for (int m = L::row(); m < P; m += L::rows)
    add_to_row<L>(x.dq + own.place.queries + static_cast<std::int64_t>(m) * d, d,
                  [&](int i) { return share * dqbar.value[i]; });
}

// Starts kernel(layout) with a warp for every chunk and room for `arrays` times P numbers.
template <class A, class... Parameters, class... Arguments>
void start(cudaStream_t stream, void (*kernel)(Parameters...), const Chunks& chunks, int arrays,
           Arguments... arguments) {
  const std::size_t shared = sizeof(A) * static_cast<std::size_t>(warps * arrays * chunks.chunk);
  launch(stream, kernel, {divide_up(chunks.count, warps)}, threads, shared, arguments..., chunks);
}

}  // namespace

void pool_keys(cudaStream_t stream, Tensor kbar, Tensor qbar, Tensor q, Tensor k, Tensor mu,
               const Chunks& chunks) {
  dispatch(k.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    dispatch_layout<T>(chunks.head_dim, vectorised<T>(chunks.head_dim, {kbar, qbar, q, k, mu}),
                       [&]<class L>(L) {
                         start<A>(stream, pool_keys_kernel<L>, chunks, 1, kbar.as<A>(), qbar.as<A>(),
                                  q.as<T>(), k.as<T>(), mu.as<T>());
                       });
  });
}

void pool_values(cudaStream_t stream, Tensor beta, Tensor omega, Tensor k, Tensor v, const Chunks& chunks) {
  dispatch(k.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    dispatch_layout<T>(chunks.head_dim, vectorised<T>(chunks.head_dim, {beta, omega, k, v}), [&]<class L>(L) {
      start<A>(stream, pool_values_kernel<L>, chunks, 1, beta.as<T>(), omega.as<A>(), k.as<T>(), v.as<T>());
    });
  });
}

void pool_values_backward(cudaStream_t stream, Tensor dv, Tensor dlogits, Tensor domega, Tensor dbeta,
                          Tensor omega, Tensor k, Tensor v, const Chunks& chunks) {
  dispatch(k.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    dispatch_layout<T>(
        chunks.head_dim, vectorised<T>(chunks.head_dim, {dv, domega, dbeta, omega, k, v}), [&]<class L>(L) {
          start<A>(stream, pool_values_backward_kernel<L>, chunks, 2, dv.as<T>(), dlogits.as<A>(),
                   domega.as<A>(), dbeta.as<T>(), omega.as<A>(), k.as<T>(), v.as<T>());
        });
  });
}

void pool_keys_backward(cudaStream_t stream, Tensor dq, Tensor dk, Tensor dmu, Tensor dkbar, Tensor dqbar,
                        Tensor dlogits, Tensor omega, Tensor k, Tensor mu, const Chunks& chunks) {
  dispatch(k.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    const KeysBackward<T> x{dq.as<T>(),      dk.as<T>(),    dmu.as<A>(), dkbar.as<A>(), dqbar.as<A>(),
                            dlogits.as<A>(), omega.as<A>(), k.as<T>(),   mu.as<T>()};
    dispatch_layout<T>(chunks.head_dim,
                       vectorised<T>(chunks.head_dim, {dq, dk, dmu, dkbar, dqbar, omega, k, mu}),
                       [&]<class L>(L) { start<A>(stream, pool_keys_backward_kernel<L>, chunks, 2, x); });
  });
}

}  // namespace flasheva::summary
