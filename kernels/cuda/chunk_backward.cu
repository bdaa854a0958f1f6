// The way back through the summary of every chunk and, in the same pass, through rotation and split:
//     dv_m += p_m dbeta      dlogit = s p (dp - sum of p dp),  dp_m = dbeta . v_m
//     domega = sum of dlogit_m k_m      dk_m += dlogit_m (omega - k_m) + d(kbar) / P,  dq_m += d(qbar) / P
//     dqkv = the inverse rotation of dq, dk, dv, merged
// Adapter learned, pool = softmax(mu . k_m): dk_m += pool_m dkappa + dpool_m mu in place of d(kbar) / P.
#include "kernels/cuda/chunk_passes.h"
#include "kernels/cuda/chunk_tile.cuh"

namespace flasheva::summary {

namespace {

template <class T>
struct Backward {
  using A = Accumulator<T>;
  T* fused;  // (B, T, 3D)
  const T *dq, *dk, *dv, *dkappa, *dbeta, *q, *k, *v;
  A *dz[2], *in[2], *column_sums[2], *dmu, *dphi;
  Rotary<A> rotary;
  Variant<T> variant;
};

// The warp's arrays of rows: means, then their gradients; omega; domega.
enum Array : int { dkbar, dqbar, omega, domega, arrays };

// The warp's numbers: of each of its chunks p and dlogits, (P) each; pool and dpool. The block's: sums over
// its tiles of what gives the gradients of bias, norm_weight and norm_bias, (3, width) for each adapter.
template <class L>
struct Numbers {
  using Tile = ChunkTile<L>;
  using A = typename L::A;
  const Tile& tile;
  int P;

  __device__ A* p(int i) const { return tile.numbers + 2 * i * P; }
  __device__ A* dlogits(int i) const { return p(i) + P; }
  __device__ A* pool() const { return p(Tile::rows); }
  __device__ A* dpool() const { return pool() + P; }
  __device__ A* sums(int which) const { return tile.of_block + which * 3 * Tile::width; }
  static __host__ __device__ typename Tile::Room room(int P) {
    return {arrays, 2 * (Tile::rows + 1) * P, 2 * 3 * Tile::width};
  }
};

// p, dlogits and domega of the warp's chunks.
template <class L, class T = typename L::T>
__device__ void values_backward(const ChunkTile<L>& tile, const Numbers<L>& numbers, const Backward<T>& x,
                                const Chunks& chunks) {
  using A = typename L::A;
  const int P = chunks.chunk, d = chunks.head_dim;
  tile.clear(domega);
  tile.for_chunks(chunks, [&](int i, const ChunkPlace& place) {
    if (!place.complete) return;
    const T* keys = x.k + place.keys;
    A *p = numbers.p(i), *dlogits = numbers.dlogits(i);
    weigh_values<L>(p, tile.row(omega, i), keys, P, d);
    const Slice<L> dbeta = load_slice<L>(x.dbeta + place.summary, d);
    weigh_rows<L>(dlogits, x.v + place.keys, P, d, [&](const Slice<L>& row, int) { return dot(dbeta, row); });
    softmax_backward(dlogits, p, P, 1 / sqrt(static_cast<A>(d)));
    const Slice<L> sum = combine_rows<L>(keys, P, d, [=](int m) { return dlogits[m]; });
    tile.set_row(domega, i, sum);
    if (x.dphi != nullptr && L::row() == 0) store_slice<L>(x.dphi + place.summary, sum, d);
  });
}

// Adds the warps' sums over rows to the block's, one warp after the other.
template <class L>
__device__ void add_column_sums(typename L::A* sums, const ColumnSums<ChunkTile<L>>& more) {
  constexpr int width = ChunkTile<L>::width;
  for (int warp = 0; warp < adapter_warps; ++warp) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) / warp_size != warp) continue;
#pragma unroll
    for (int j = 0; j < ChunkTile<L>::columns; ++j) {
      typename L::A* own = sums + lane_id() + j * warp_size;
      own[0] += more.bias[j];
      own[width] += more.norm_weight[j];
      own[2 * width] += more.norm_bias[j];
    }
  }
}

// From dkappa and domega to dkbar and dqbar, in the place of the means. All threads of the block take part.
template <class L, class T = typename L::T>
__device__ void proposal_backward(const ChunkTile<L>& tile, const Numbers<L>& numbers, const Backward<T>& x,
                                  const Chunks& chunks) {
  using Tile = ChunkTile<L>;
  const auto place_of = [&](std::int64_t row) { return chunks.at(static_cast<int>(row)); };
  const auto store = [&](typename L::A* out, const typename Tile::Rows& rows) {
    if (out == nullptr) return;
    tile.for_elements(place_of, [&](const ChunkPlace& place, int column, int i, int j) {
      if (place.complete) out[place.summary + column] = rows.value[i][j];
    });
  };
#pragma unroll 1
  for (int which = 0; which < (x.variant.uses_queries ? 2 : 1); ++which) {
    const AdapterParameters<T>& adapter = x.variant.adapters[which];
    typename Tile::Rows dout{};
    if (which == 1 || x.variant.centred_on_kappa) dout = tile.get(domega);
    if (which == 0)
      tile.for_elements(place_of, [&](const ChunkPlace& place, int column, int i, int j) {
        if (place.complete) dout.value[i][j] += widened(x.dkappa[place.summary + column]);
      });
    if (adapter.weight != nullptr) {
      const auto in = tile.get(which);
      ColumnSums<Tile> sums;
      if (adapter.norm_weight != nullptr) normalize_backward(tile, dout, sums, in, adapter);
      tile.for_elements([&](std::int64_t, int, int i, int j) { sums.bias[j] += dout.value[i][j]; });
      add_column_sums<L>(numbers.sums(which), sums);
      store(x.in[which], in);
      store(x.dz[which], dout);
      dout = multiply<false>(tile, dout, adapter.weight);
    }
    tile.set(which, dout);
  }
}

// pool and dpool of a chunk, and its share of the gradient of mu.
template <class L, class T = typename L::T>
__device__ void pool_backward(const ChunkTile<L>& tile, const Numbers<L>& numbers, const Backward<T>& x,
                              const ChunkPlace& place, int i, int P) {
  using A = typename L::A;
  const int d = tile.d;
  A *pool = numbers.pool(), *dpool = numbers.dpool();
  const T* keys = x.k + place.keys;
  const Slice<L> dkappa = tile.row(dkbar, i);
  weigh_keys<L>(pool, load_slice<L>(x.variant.mu + place.head * d, d), keys, P, d);
  weigh_rows<L>(dpool, keys, P, d, [&](const Slice<L>& row, int) { return dot(dkappa, row); });
  softmax_backward(dpool, pool, P, A{1});
  const Slice<L> sum = combine_rows<L>(keys, P, d, [=](int m) { return dpool[m]; });
  if (x.dmu != nullptr && L::row() == 0) store_slice<L>(x.dmu + place.summary, sum, d);
}

// The gradients of row m of q, k and v, but for the rotation.
template <class L>
struct TokenGradients {
  Slice<L> dq, dk, dv;
};

template <class L, class T = typename L::T>
__device__ TokenGradients<L> token_backward(const ChunkTile<L>& tile, const Numbers<L>& numbers,
                                            const Backward<T>& x, const ChunkPlace& place, int i, int m,
                                            int P) {
  using A = typename L::A;
  const int d = tile.d;
  const std::int64_t at = place.keys + static_cast<std::int64_t>(m) * d;
  TokenGradients<L> token{load_slice<L>(x.dq + at, d), load_slice<L>(x.dk + at, d),
                          load_slice<L>(x.dv + at, d)};
  if (!place.complete) return token;
  const A share = 1 / static_cast<A>(P), dlogit = numbers.dlogits(i)[m];
  add_scaled(token.dv, numbers.p(i)[m], load_slice<L>(x.dbeta + place.summary, d));
  add_scaled(token.dk, dlogit, tile.row(omega, i));
  add_scaled(token.dk, -dlogit, load_slice<L>(x.k + at, d));
  const bool learned = x.variant.mu != nullptr;
  add_scaled(token.dk, learned ? numbers.pool()[m] : share, tile.row(dkbar, i));
  if (learned) add_scaled(token.dk, numbers.dpool()[m], load_slice<L>(x.variant.mu + place.head * d, d));
  if (x.variant.uses_queries) add_scaled(token.dq, share, tile.row(dqbar, i));
  return token;
}

// The tokens of one chunk, turned back and merged.
template <class L, class T = typename L::T>
__device__ void merge_tokens(const ChunkTile<L>& tile, const Numbers<L>& numbers, const Backward<T>& x,
                             const ChunkPlace& place, int i, int P) {
  const int d = tile.d;
  for (int first = 0; first < place.tokens; first += L::rows) {
    const int m = first + L::row();
    const bool there = m < place.tokens;
    TokenGradients<L> token{};
    if (there) token = token_backward(tile, numbers, x, place, i, m, P);
    const int half = there ? x.rotary.half : 0;
    T* fused = x.fused + place.fused + m * place.fused_stride;
    const auto turn_back = [&](const Slice<L>& row, T* out) {
      const Slice<L> turned = tile.turned(row, x.rotary, place.position + m, half, -1);
      if (there) store_slice<L>(out, turned, d);
    };
    turn_back(token.dq, fused);
    turn_back(token.dk, fused + d);
    if (there) store_slice<L>(fused + 2 * d, token.dv, d);
  }
}

// column_sums (3, d) of the block =
template <class L, class T = typename L::T>
__device__ void store_column_sums(const Backward<T>& x, const Numbers<L>& numbers, int d) {
  __syncthreads();
  for (int which = 0; which < 2; ++which) {
    if (x.column_sums[which] == nullptr) continue;
    typename L::A* out = x.column_sums[which] + static_cast<std::int64_t>(blockIdx.x) * 3 * d;
    for (int e = static_cast<int>(threadIdx.x); e < 3 * d; e += adapter_threads)
      out[e] = numbers.sums(which)[e / d * ChunkTile<L>::width + e % d];
  }
}

template <class L, class T = typename L::T>
__global__ void __launch_bounds__(adapter_threads, L::resident_blocks)
    backward_kernel(Backward<T> x, Chunks chunks, int tiles) {
  using Tile = ChunkTile<L>;
  using A = typename L::A;
  const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x), P = chunks.chunk;
  const auto first_of = [=](int b) {
    return static_cast<int>(static_cast<std::int64_t>(tiles) * b / blocks);
  };
  const Tile any(0, chunks, Numbers<L>::room(P));
  for (int e = static_cast<int>(threadIdx.x); e < 2 * 3 * Tile::width; e += adapter_threads)
    any.of_block[e] = A{0};
  for (int t = first_of(block); t < first_of(block + 1); ++t) {
    const Tile tile(t, chunks, Numbers<L>::room(P));
    const Numbers<L> numbers{tile, P};
    pool_tokens(tile, x.variant, x.k, chunks,
                [&](const ChunkPlace& place, int m, Slice<L>& query, Slice<L>& key) {
                  if (m >= place.tokens || !place.complete) return;
                  const std::int64_t at = place.keys + static_cast<std::int64_t>(m) * tile.d;
                  if (x.variant.uses_queries) query = load_slice<L>(x.q + at, tile.d);
                  key = load_slice<L>(x.k + at, tile.d);
                });
    tile.set(omega, propose(tile, x.variant, chunks, [](const typename Tile::Rows&) {}));
    values_backward(tile, numbers, x, chunks);
    proposal_backward(tile, numbers, x, chunks);
    tile.for_chunks(chunks, [&](int i, const ChunkPlace& place) {
      if (x.variant.mu != nullptr && place.complete) pool_backward(tile, numbers, x, place, i, P);
      merge_tokens(tile, numbers, x, place, i, P);
    });
  }
  store_column_sums(x, Numbers<L>{any, P}, chunks.head_dim);
}

// Calls body(layout) for the tensors of the backward pass.
template <class T, class Body>
void dispatch_backward(const BackwardTensors& t, Tensor mu, int d, const Body& body) {
  dispatch_layout<T>(d, vectorised<T>(d, {t.dqkv, t.dq, t.dk, t.dv, t.dkappa, t.dbeta, t.q, t.k, t.v, mu}),
                     body);
}

}  // namespace

void summarise_backward(cudaStream_t stream, const ParameterRows& rows, const BackwardTensors& t,
                        const EvaParameters& parameters, const Problem& problem, const Chunks& chunks,
                        int blocks) {
  dispatch(t.k.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    const Backward<T> x{t.dqkv.as<T>(),
                        t.dq.as<T>(),
                        t.dk.as<T>(),
                        t.dv.as<T>(),
                        t.dkappa.as<T>(),
                        t.dbeta.as<T>(),
                        t.q.as<T>(),
                        t.k.as<T>(),
                        t.v.as<T>(),
                        {rows.dz[0].as<A>(), rows.dz[1].as<A>()},
                        {rows.in[0].as<A>(), rows.in[1].as<A>()},
                        {rows.column_sums[0].as<A>(), rows.column_sums[1].as<A>()},
                        rows.dmu.as<A>(),
                        rows.dphi.as<A>(),
                        rotary_of<T>(t.cosine, t.sine, chunks.head_dim),
                        {problem, parameters}};
    dispatch_backward<T>(t, parameters.mu, chunks.head_dim, [&]<class L>(L) {
      using Tile = ChunkTile<L>;
      launch(stream, backward_kernel<L>, {blocks}, adapter_threads, Numbers<L>::room(chunks.chunk).bytes(), x,
             chunks, static_cast<int>(divide_up(chunks.count, Tile::block_rows)));
    });
  });
}

}  // namespace flasheva::summary
