// The proposals of chunk summaries (ops.h), over tiles of rows of chunk means:
//     kappa = A_k(kbar)        omega = mu + clip(eps),  mu = A_q(qbar) + kappa | kappa | 0
// Adapter learned: kappa = kbar, pooled by its weights before, and mu = phi.
#include "kernels/cuda/chunk_adapter.cuh"
#include "kernels/cuda/chunk_proposal.h"
#include "kernels/philox.h"

namespace flasheva::summary {

namespace {

// Calls body(constant of the columns a lane has) for rows of d <= 256 elements. Few of them: each takes the
// compiler a while.
template <class A, class Body>
void dispatch_columns(std::int64_t d, const Body& body) {
  if constexpr (std::is_same_v<A, float>) {
    if (d <= 64) return body(std::integral_constant<int, 2>{});
    if (d <= 128) return body(std::integral_constant<int, 4>{});
  }
  return body(std::integral_constant<int, 8>{});
}

template <class T>
AdapterParameters<T> parameters_of(const AdapterTensors& adapter) {
  return {adapter.weight.as<T>(), adapter.bias.as<T>(), adapter.norm_weight.as<T>(),
          adapter.norm_bias.as<T>()};
}

// --- forward ----------------------------------------------------------------------------------------------

template <class T>
struct Proposed {
  using A = Accumulator<T>;
  T* kappa;
  A* omega;
  const A *kbar, *qbar;  // qbar: null where no queries are used
  const T* phi;          // adapter learned
  AdapterParameters<T> key, query;
  bool centred_on_kappa;
  ChunkNoise noise;
};

// omega += clip(eps): the lanes share the draws of four dimensions each.
template <class Tile>
__device__ void add_noise(const Tile& tile, typename Tile::Rows& omega, const ChunkNoise& noise,
                          const Chunks& chunks) {
  using A = typename Tile::A;
  const int draws = (tile.d + 3) / 4;
  __syncwarp();
  for (int e = lane_id(); e < Tile::rows * draws; e += warp_size) {
    const int i = e / draws, j = e % draws;
    if (tile.first + i >= tile.count) continue;
    const ChunkPlace place = chunks.at(tile.first + i);
    const FourNormals eps =
        chunk_noise(noise.seed, noise.step, noise.layer,
                    noise.first_sequence + static_cast<std::uint32_t>(place.sequence),
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

template <class T, int columns>
__global__ void __launch_bounds__(adapter_threads) propose_kernel(Proposed<T> x, Chunks chunks) {
  using A = Accumulator<T>;
  using Tile = AdapterTile<A, columns>;
  const int block = static_cast<int>(blockIdx.x);
  if (!chunks.any_present(block * Tile::block_rows, (block + 1) * Tile::block_rows)) return;
  const Tile tile(block, chunks.count, chunks.head_dim);
  const auto place_of = [&](std::int64_t row) { return chunks.at(static_cast<int>(row)); };
  typename Tile::Rows omega{};
  if (x.kappa != nullptr || x.centred_on_kappa) {
    const auto kappa = adapter_forward(tile, tile.load(x.kbar), x.key);
    if (x.centred_on_kappa) omega = kappa;
    if (x.kappa != nullptr)
      tile.for_elements(place_of, [&](const ChunkPlace& place, int column, int i, int j) {
        if (place.present) x.kappa[place.summary + column] = static_cast<T>(kappa.value[i][j]);
      });
  }
  if (x.qbar != nullptr) {
    const auto query = adapter_forward(tile, tile.load(x.qbar), x.query);
    tile.for_elements([&](std::int64_t, int, int i, int j) { omega.value[i][j] += query.value[i][j]; });
  }
  if (x.phi != nullptr)
    tile.for_elements(place_of, [&](const ChunkPlace& place, int column, int i, int j) {
      omega.value[i][j] = widened(x.phi[place.head * tile.d + column]);
    });
  if (x.noise.enabled) add_noise(tile, omega, x.noise, chunks);
  tile.store(x.omega, omega);
}

// --- backward ---------------------------------------------------------------------------------------------

template <class T>
struct ProposedBackward {
  using A = Accumulator<T>;
  A *din, *dz, *column_sums;
  const T* dkappa;
  const A *domega, *in;
  AdapterParameters<T> adapter;
  int count, d;
};

// column_sums (3, d) of the block = the sums of its warps, in order.
template <class Tile>
__device__ void store_column_sums(typename Tile::A* column_sums, const Tile& tile,
                                  const ColumnSums<Tile>& sums) {
  using A = typename Tile::A;
  A* shared = reinterpret_cast<A*>(dynamic_shared());  // (warps, 3, width)
  const int warp = static_cast<int>(threadIdx.x) / warp_size;
  __syncthreads();
#pragma unroll
  for (int j = 0; j < Tile::columns; ++j) {
    A* own = shared + warp * 3 * Tile::width + lane_id() + j * warp_size;
    own[0] = sums.bias[j];
    own[Tile::width] = sums.norm_weight[j];
    own[2 * Tile::width] = sums.norm_bias[j];
  }
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < 3 * Tile::width; e += adapter_threads) {
    if (e % Tile::width >= tile.d) continue;
    A sum = 0;
    for (int w = 0; w < adapter_warps; ++w) sum += shared[w * 3 * Tile::width + e];
    column_sums[e / Tile::width * tile.d + e % Tile::width] = sum;
  }
}

template <class T, int columns>
__global__ void __launch_bounds__(adapter_threads) propose_backward_kernel(ProposedBackward<T> x, int tiles) {
  using A = Accumulator<T>;
  using Tile = AdapterTile<A, columns>;
  const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  ColumnSums<Tile> sums;
  for (int t = tiles * block / blocks; t < tiles * (block + 1) / blocks; ++t) {
    const Tile tile(t, x.count, x.d);
    typename Tile::Rows dout{};
    tile.for_elements([&](std::int64_t row, int column, int i, int j) {
      const std::int64_t at = row * x.d + column;
      if (x.dkappa != nullptr) dout.value[i][j] = widened(x.dkappa[at]);
      if (x.domega != nullptr) dout.value[i][j] += x.domega[at];
    });
    if (x.adapter.weight != nullptr) {
      if (x.adapter.norm_weight != nullptr) normalize_backward(tile, dout, sums, tile.load(x.in), x.adapter);
      tile.for_elements([&](std::int64_t, int, int i, int j) { sums.bias[j] += dout.value[i][j]; });
      tile.store(x.dz, dout);
      dout = multiply<false>(tile, dout, x.adapter.weight);
    }
    tile.store(x.din, dout);
  }
  if (x.adapter.weight == nullptr) return;
  store_column_sums(x.column_sums + static_cast<std::int64_t>(block) * 3 * x.d, Tile(0, x.count, x.d), sums);
}

}  // namespace

void propose(cudaStream_t stream, DType dtype, Tensor kappa, Tensor omega, Tensor kbar, Tensor qbar,
             const EvaParameters& p, const Problem& problem, const Chunks& chunks) {
  const bool centred = !problem.learned() && problem.config.proposal != Proposal::zero;
  const Tensor phi = problem.learned() ? p.phi : Tensor{};
  dispatch(dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    const Proposed<T> x{kappa.as<T>(),
                        omega.as<A>(),
                        kbar.as<A>(),
                        qbar.as<A>(),
                        phi.as<T>(),
                        parameters_of<T>(key_adapter(problem, p)),
                        parameters_of<T>(query_adapter(problem, p)),
                        centred,
                        problem.config.noise};
    dispatch_columns<A>(problem.d, [&]<int columns>(std::integral_constant<int, columns>) {
      using Tile = AdapterTile<A, columns>;
      launch(stream, propose_kernel<T, columns>, {divide_up(chunks.count, Tile::block_rows)}, adapter_threads,
             Tile::shared_bytes, x, chunks);
    });
  });
}

int adapter_blocks(std::int64_t count, std::int64_t d, int multiprocessors) {
  std::int64_t tiles = 0;
  dispatch_columns<float>(d, [&]<int columns>(std::integral_constant<int, columns>) {
    tiles = divide_up(count, AdapterTile<float, columns>::block_rows);
  });
  return static_cast<int>(std::min<std::int64_t>(tiles, 2 * multiprocessors));
}

void propose_backward(cudaStream_t stream, DType dtype, Tensor din, Tensor dz, Tensor column_sums,
                      Tensor dkappa, Tensor domega, Tensor in, const AdapterTensors& adapter) {
  const int count = static_cast<int>(in.dim(0)), d = static_cast<int>(in.dim(1));
  dispatch(dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    const ProposedBackward<T> x{din.as<A>(),
                                dz.as<A>(),
                                column_sums.as<A>(),
                                dkappa.as<T>(),
                                domega.as<A>(),
                                in.as<A>(),
                                parameters_of<T>(adapter),
                                count,
                                d};
    dispatch_columns<A>(d, [&]<int columns>(std::integral_constant<int, columns>) {
      using Tile = AdapterTile<A, columns>;
      const std::int64_t tiles = divide_up(count, Tile::block_rows);
      const Grid grid{column_sums ? column_sums.dim(0) : tiles};
      launch(stream, propose_backward_kernel<T, columns>, grid, adapter_threads, Tile::shared_bytes, x,
             static_cast<int>(tiles));
    });
  });
}

}  // namespace flasheva::summary
