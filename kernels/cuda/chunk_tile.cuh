// A tile of neighbouring chunks on the way from their tokens to their proposals (ops.h): a block's four warps
// have `rows` chunks each, one after the other while they are at tokens, all at once while they are at means.
//     kbar, qbar = means of k, q; adapter learned: kbar = sum of softmax(mu . k_m) k_m
//     kappa = A_k(kbar)        omega = mu + clip(eps),  mu = A_q(qbar) + kappa | kappa | 0
// Adapter learned: kappa = kbar and mu = phi.
#pragma once

#include "kernels/cuda/chunk_adapter.cuh"
#include "kernels/cuda/chunk_rows.cuh"
#include "kernels/cuda/chunks.cuh"
#include "kernels/cuda/rotary.cuh"
#include "kernels/philox.h"

namespace flasheva::summary {

// ChunkNoise, off where there is no place.
struct Noise {
  const std::int32_t* place;
  std::uint64_t seed;
  std::uint32_t layer;
  float clip;

  explicit Noise(const ChunkNoise& noise)
      : place(noise.enabled ? noise.place.as<std::int32_t>() : nullptr),
        seed(noise.seed),
        layer(noise.layer),
        clip(noise.clip) {}
};

// The layer's parameters and which of them its variant has.
template <class T>
struct Variant {
  AdapterParameters<T> adapters[2];  // of keys and of queries
  const T *mu, *phi;                 // adapter learned
  bool centred_on_kappa, uses_queries;
  Noise noise;

  Variant(const Problem& problem, const EvaParameters& p)
      : adapters{parameters_of(problem, p.key_weight, p.key_bias, p.key_norm_weight, p.key_norm_bias),
                 parameters_of(problem, p.query_weight, p.query_bias, p.query_norm_weight,
                               p.query_norm_bias)},
        mu(problem.learned() ? p.mu.as<T>() : nullptr),
        phi(problem.learned() ? p.phi.as<T>() : nullptr),
        centred_on_kappa(!problem.learned() && problem.config.proposal != Proposal::zero),
        uses_queries(problem.uses_queries()),
        noise(problem.config.noise) {}

 private:
  static AdapterParameters<T> parameters_of(const Problem& problem, const Tensor& weight, const Tensor& bias,
                                            const Tensor& norm_weight, const Tensor& norm_bias) {
    if (!problem.adapted()) return {};
    if (!problem.layernorm()) return {weight.as<T>(), bias.as<T>(), nullptr, nullptr};
    return {weight.as<T>(), bias.as<T>(), norm_weight.as<T>(), norm_bias.as<T>()};
  }
};

// The angles of every position, (>= T, half).
template <class A>
struct Rotary {
  const A *cosine, *sine;
  int half;
  bool in_vectors;  // vectors of a row turn or stay as a whole, and the tables are aligned as they are
};

template <class T, class A = Accumulator<T>>
Rotary<A> rotary_of(Tensor cosine, Tensor sine, int d) {
  const int half = cosine ? static_cast<int>(cosine.dim(1)) : 0;
  return {cosine.as<A>(), sine.as<A>(), half, turns_in_vectors<T>(d, half, cosine.as<A>(), sine.as<A>())};
}

template <class L>
struct ChunkTile : AdapterTile<typename L::A, L::elements * L::lanes / warp_size> {
  using T = typename L::T;
  using A = typename L::A;
  using Base = AdapterTile<A, L::elements * L::lanes / warp_size>;
  using Rows = typename Base::Rows;
  static constexpr int rows = Base::rows, width = Base::width, row_elements = rows * width;

  // Shared memory: `of_block` numbers of all warps; of the warp `arrays` arrays of rows, a row for each group
  // of lanes, and `numbers`.
  struct Room {
    int arrays, numbers, of_block;

    __host__ __device__ int of_warp() const {
      return arrays * row_elements + L::rows * width + (numbers + 31) / 32 * 32;
    }
    std::size_t bytes() const {
      return Base::shared_bytes + sizeof(A) * static_cast<std::size_t>(of_block + adapter_warps * of_warp());
    }
  };

  A *of_block, *arrays, *exchange, *numbers;

  __device__ ChunkTile(int tile, const Chunks& chunks, const Room& room)
      : Base(tile, chunks.count, chunks.head_dim) {
    const int warp = static_cast<int>(threadIdx.x) / warp_size;
    of_block = reinterpret_cast<A*>(dynamic_shared() + Base::shared_bytes);
    arrays = of_block + room.of_block + warp * room.of_warp();
    exchange = arrays + room.arrays * row_elements;
    numbers = exchange + L::rows * width;
  }

  __device__ A* array(int which) const { return arrays + which * row_elements; }
  // Row i of an array as a slice of every group of lanes.
  __device__ Slice<L> row(int which, int i) const { return load_slice<L>(array(which) + i * width, this->d); }
  // Written by the lanes of the first group; the rest of the array stays.
  __device__ void set_row(int which, int i, const Slice<L>& slice) const {
    if (L::row() == 0) store_slice<L>(array(which) + i * width, slice, this->d);
  }
  __device__ void clear(int which) const {
    for (int e = lane_id(); e < row_elements; e += warp_size) array(which)[e] = 0;
    __syncwarp();
  }
  __device__ Rows get(int which) const {
    __syncwarp();
    Rows x;
#pragma unroll
    for (int i = 0; i < rows; ++i)
#pragma unroll
      for (int j = 0; j < Base::columns; ++j)
        x.value[i][j] = array(which)[i * width + lane_id() + j * warp_size];
    return x;
  }
  __device__ void set(int which, const Rows& x) const {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < rows; ++i)
#pragma unroll
      for (int j = 0; j < Base::columns; ++j)
        array(which)[i * width + lane_id() + j * warp_size] = x.value[i][j];
    __syncwarp();
  }

  // Calls body(i, place) for the warp's chunks, one after the other; absent ones are left out.
  template <class Body>
  __device__ void for_chunks(const Chunks& chunks, const Body& body) const {
#pragma unroll 1
    for (int i = 0; i < rows && this->first + i < this->count; ++i)
      if (const ChunkPlace place = chunks.at(this->first + i); place.tokens > 0) body(i, place);
  }

  // x with its first 2 half elements turned, half against half, by the angles of a position; direction -1
  // turns back. All lanes take part; those without a row say half 0.
  __device__ Slice<L> turned(const Slice<L>& x, const Rotary<A>& rotary, std::int64_t position, int half,
                             A direction) const {
    A* own = exchange + L::row() * width;
    __syncwarp();
    store_slice<L>(own, x, this->d);
    __syncwarp();
    Slice<L> out = x;
    const A *cosine = rotary.cosine + position * half, *sine = rotary.sine + position * half;
    if (L::width > 1 && rotary.in_vectors)
      turn<L::width>(out, own, cosine, sine, half, direction);
    else
      turn<1>(out, own, cosine, sine, half, direction);
    return out;
  }

 private:
  // x turned in place, `count` elements at a time; own: the whole row as it was.
  template <int count>
  static __device__ void turn(Slice<L>& x, const A* own, const A* cosine, const A* sine, int half,
                              A direction) {
#pragma unroll
    for (int e = 0; e < L::elements; e += count) {
      const int c = L::column(e / L::width) + e % L::width, i = c < half ? c : c - half;
      if (i >= half) continue;
      const auto partners = load_vector<count>(own + (c < half ? c + half : i));
      const auto cosines = load_vector<count>(cosine + i), sines = load_vector<count>(sine + i);
#pragma unroll
      for (int j = 0; j < count; ++j)
        x.value[e + j] = flasheva::turned(x.value[e + j], c < half ? -partners.value[j] : partners.value[j],
                                          cosines.value[j], direction * sines.value[j]);
    }
  }
};

// As a row of T would give them back.
template <class L>
__device__ inline Slice<L> as_stored(Slice<L> x) {
#pragma unroll
  for (int i = 0; i < L::elements; ++i) x.value[i] = widened(static_cast<typename L::T>(x.value[i]));
  return x;
}

// weights (P) = softmax(mu . k_m)
template <class L>
[[gnu::noinline]] __device__ void weigh_keys(typename L::A* weights, Slice<L> mu, const typename L::T* k,
                                             int P, int d) {
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

// Arrays 0 and 1 = kbar and qbar of the warp's chunks, 0 where there is none. load(place, m, q, k), called by
// all lanes, gives row m of q and k, 0 beyond place.tokens; keys of a chunk are at k + place.keys by then.
template <class L, class T = typename L::T, class Load>
__device__ void pool_tokens(const ChunkTile<L>& tile, const Variant<T>& variant, const T* k,
                            const Chunks& chunks, const Load& load) {
  using A = typename L::A;
  const int P = chunks.chunk, d = chunks.head_dim;
  tile.clear(0);
  tile.clear(1);
  tile.for_chunks(chunks, [&](int i, const ChunkPlace& place) {
    Slice<L> keys{}, queries{};
    for (int first = 0; first < place.tokens; first += L::rows) {
      Slice<L> query{}, key{};
      load(place, first + L::row(), query, key);
      add(keys, key);
      add(queries, query);
    }
    if (!place.complete) return;
    if (variant.mu != nullptr) {
      A* weights = tile.numbers;
      weigh_keys<L>(weights, load_slice<L>(variant.mu + place.head * d, d), k + place.keys, P, d);
      keys = combine_rows<L>(k + place.keys, P, d, [=](int m) { return weights[m]; });
    } else {
      sum_groups(keys);
      scale(keys, 1 / static_cast<A>(P));
    }
    tile.set_row(0, i, keys);
    if (!variant.uses_queries) return;
    sum_groups(queries);
    scale(queries, 1 / static_cast<A>(P));
    tile.set_row(1, i, queries);
  });
}

// omega += clip(eps): the lanes share the draws of four dimensions each.
template <class L>
__device__ void add_noise(const ChunkTile<L>& tile, typename ChunkTile<L>::Rows& omega, const Noise& noise,
                          const Chunks& chunks) {
  using Tile = ChunkTile<L>;
  using A = typename L::A;
  const int draws = (tile.d + 3) / 4;
  const auto step = static_cast<std::uint32_t>(noise.place[0]),
             first = static_cast<std::uint32_t>(noise.place[1]);
  __syncwarp();
  for (int e = lane_id(); e < Tile::rows * draws; e += warp_size) {
    const int i = e / draws, j = e % draws;
    if (tile.first + i >= tile.count) continue;
    const ChunkPlace place = chunks.at(tile.first + i);
    const FourNormals eps =
        chunk_noise(noise.seed, step, noise.layer, first + static_cast<std::uint32_t>(place.sequence),
                    static_cast<std::uint32_t>(place.head), static_cast<std::uint32_t>(place.chunk),
                    static_cast<std::uint32_t>(tile.d), static_cast<std::uint32_t>(j));
    for (int part = 0; part < 4; ++part)
      tile.own[i * Tile::width + 4 * j + part] =
          static_cast<A>(fminf(fmaxf(eps.value[part], -noise.clip), noise.clip));
  }
  __syncwarp();
  tile.for_elements([&](std::int64_t, int column, int i, int j) {
    omega.value[i][j] += tile.own[i * Tile::width + column];
  });
}

// omega of the tile, from arrays 0 and 1. store_kappa(rows) may keep kappa. All threads of the block take
// part.
template <class L, class T = typename L::T, class StoreKappa>
__device__ typename ChunkTile<L>::Rows propose(const ChunkTile<L>& tile, const Variant<T>& variant,
                                               const Chunks& chunks, const StoreKappa& store_kappa) {
  typename ChunkTile<L>::Rows omega{};
#pragma unroll 1
  for (int which = 0; which < (variant.uses_queries ? 2 : 1); ++which) {
    const auto out = adapter_forward(tile, tile.get(which), variant.adapters[which]);
    if (which == 0) store_kappa(out);
    if (which == 1 || variant.centred_on_kappa)
      tile.for_elements([&](std::int64_t, int, int i, int j) { omega.value[i][j] += out.value[i][j]; });
  }
  if (variant.phi != nullptr)
    tile.for_elements(
        [&](std::int64_t row) { return chunks.at(static_cast<int>(row)).head * tile.d; },
        [&](int head, int column, int i, int j) { omega.value[i][j] = widened(variant.phi[head + column]); });
  if (variant.noise.place != nullptr) add_noise(tile, omega, variant.noise, chunks);
  return omega;
}

// All pointers at rows of d elements that are aligned to whole vectors of T.
template <class T>
bool vectorised(int d, std::initializer_list<Tensor> tensors) {
  bool aligned = d % vector_width<T> == 0;
  for (const Tensor& x : tensors) aligned = aligned && aligned_to(x.data, 16);
  return aligned;
}

}  // namespace flasheva::summary
