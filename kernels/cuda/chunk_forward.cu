// Query, key and value of every token and, in the same pass, the summary of every chunk (ops.h):
//     q, k, v = split(qkv), rotary(q), rotary(k)
//     p = softmax of s (omega . k_m - |k_m|^2 / 2)        beta = sum of p_m v_m,   s = 1/sqrt(d)
// kappa and omega: chunk_tile.cuh. What a warp reads again of k and v it has just written.
#include "kernels/cuda/chunk_passes.h"
#include "kernels/cuda/chunk_tile.cuh"

namespace flasheva::summary {

namespace {

template <class T>
struct Forward {
  using A = Accumulator<T>;
  const T* fused;  // (B, T, 3D); null where q, k and v are there already
  T *q, *k, *v, *kappa, *beta;
  Rotary<A> rotary;
  Variant<T> variant;
};

// Row m of q and k, from the fused row, which is taken apart. All of it is on its way before the first part
// turns: the barriers there would keep later loads back.
template <class L, class T = typename L::T>
__device__ void split_token(const ChunkTile<L>& tile, const Forward<T>& x, const ChunkPlace& place, int m,
                            Slice<L>& query, Slice<L>& key) {
  const bool there = m < place.tokens;
  const int d = tile.d, half = there ? x.rotary.half : 0;
  const std::int64_t t = place.position + m;
  const T* fused = x.fused + place.fused + m * place.fused_stride;
  const std::int64_t at = place.keys + static_cast<std::int64_t>(m) * d;
  Slice<L> value{};
  if (there) {
    query = load_slice<L>(fused, d);
    key = load_slice<L>(fused + d, d);
    value = load_slice<L>(fused + 2 * d, d);
  }
  const auto turn = [&](Slice<L>& row, T* out) {
    row = as_stored(tile.turned(row, x.rotary, t, half, 1));
    if (there) store_slice<L>(out + at, row, d);
  };
  turn(query, x.q);
  turn(key, x.k);
  if (there) store_slice<L>(x.v + at, value, d);
}

template <class L, class T = typename L::T>
__device__ void load_token(const Forward<T>& x, const ChunkPlace& place, int m, int d, Slice<L>& query,
                           Slice<L>& key) {
  if (m >= place.tokens) return;
  const std::int64_t at = static_cast<std::int64_t>(m) * d;
  if (x.variant.uses_queries) query = load_slice<L>(x.q + place.queries + at, d);
  key = load_slice<L>(x.k + place.keys + at, d);
}

template <class L, class T = typename L::T>
__global__ void __launch_bounds__(adapter_threads, L::resident_blocks)
    forward_kernel(Forward<T> x, Chunks chunks) {
  using Tile = ChunkTile<L>;
  using A = typename L::A;
  const int block = static_cast<int>(blockIdx.x), P = chunks.chunk, d = chunks.head_dim;
  if (!chunks.any_present(block * Tile::block_rows, (block + 1) * Tile::block_rows)) return;
  const Tile tile(block, chunks, {2, P, 0});
  pool_tokens(tile, x.variant, x.k, chunks,
              [&](const ChunkPlace& place, int m, Slice<L>& query, Slice<L>& key) {
                if (x.fused != nullptr)
                  split_token(tile, x, place, m, query, key);
                else
                  load_token(x, place, m, d, query, key);
              });
  const auto place_of = [&](std::int64_t row) { return chunks.at(static_cast<int>(row)); };
  tile.set(0, propose(tile, x.variant, chunks, [&](const typename Tile::Rows& kappa) {
             tile.for_elements(place_of, [&](const ChunkPlace& place, int column, int i, int j) {
               if (place.complete) x.kappa[place.summary + column] = static_cast<T>(kappa.value[i][j]);
             });
           }));
  tile.for_chunks(chunks, [&](int i, const ChunkPlace& place) {
    if (!place.complete) return;
    A* weights = tile.numbers;
    weigh_values<L>(weights, tile.row(0, i), x.k + place.keys, P, d);
    const Slice<L> sum = combine_rows<L>(x.v + place.keys, P, d, [=](int m) { return weights[m]; });
    if (L::row() == 0) store_slice<L>(x.beta + place.summary, sum, d);
  });
}

}  // namespace

void summarise(cudaStream_t stream, Tensor kappa, Tensor beta, Tensor q, Tensor k, Tensor v, Tensor qkv,
               Tensor cosine, Tensor sine, const EvaParameters& parameters, const Problem& problem,
               const Chunks& chunks) {
  dispatch(k.dtype, [&]<class T>(T) {
    const Forward<T> x{qkv.as<T>(),
                       q.as<T>(),
                       k.as<T>(),
                       v.as<T>(),
                       kappa.as<T>(),
                       beta.as<T>(),
                       rotary_of<T>(cosine, sine, chunks.head_dim),
                       {problem, parameters}};
    dispatch_layout<T>(chunks.head_dim,
                       vectorised<T>(chunks.head_dim, {qkv, q, k, v, kappa, beta, parameters.mu}),
                       [&]<class L>(L) {
                         using Tile = ChunkTile<L>;
                         const typename Tile::Room room{2, chunks.chunk, 0};
                         launch(stream, forward_kernel<L>, {divide_up(chunks.count, Tile::block_rows)},
                                adapter_threads, room.bytes(), x, chunks);
                       });
  });
}

}  // namespace flasheva::summary
