// Attention of the newest token of each sequence to what is cached of it (ops.h, LayerCache):
//
//     o = softmax over [ s q.k_m , m in a(n)..n ;  s q.kappa_c + bias , c < visible_chunks(n) ]
//         applied to [ v_m ; beta_c ],  s = 1/sqrt(d)
//
// Every key and value is read once, so that the bytes of the cache are the limit. A group of lanes takes a
// few keys at a time and keeps a softmax of its own; those of a block are merged, and where there are many
// keys, they are split between blocks, whose parts (out, log-sum-exp) a second kernel merges.
#include "kernels/cache_contract.h"
#include "kernels/cuda/attention_problem.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"

namespace flasheva {

namespace {

using namespace attention;

constexpr int threads = 128, keys_at_once = 4;

// `lanes` of a warp share a key, each with `parts` vectors of `width` elements, `lanes` vectors apart.
template <class T_, int width_, int lanes_, int parts_>
struct KeyGroup {
  using T = T_;
  static constexpr int width = width_, lanes = lanes_, parts = parts_;
  static constexpr int elements = width * parts, groups = threads / lanes;
};

template <class T>
struct CachedProblem {
  Operands<T> in;  // q (N, H, d); k and v the rings (S, H, R, d); kappa, beta (S, H, C, d)
  const std::int32_t *sequences, *positions;
  int* bad_place;  // CudaOps::bad_token_
  Problem sizes;   // tokens R and chunks C of the cache
  int all_sequences, splits;
};

// A softmax over some of the keys: out is not yet divided by sum. In units of log2.
template <class A, int elements>
struct PartialSoftmax {
  A max = -1e30, sum = 0, out[elements] = {};

  __device__ void scale_to(A max_now) {
    const A factor = exp2(max - max_now);
    max = max_now;
    sum *= factor;
#pragma unroll
    for (int i = 0; i < elements; ++i) out[i] *= factor;
  }
};

// The group's elements of a row, as they are stored: those behind d are 0.
template <class Group>
struct GroupRow {
  using T = typename Group::T;
  Vector<T, Group::width> part[Group::parts];

  __device__ void load(const T* row, int d) {
    const int lane = static_cast<int>(threadIdx.x) % Group::lanes;
#pragma unroll
    for (int p = 0; p < Group::parts; ++p) {
      const int first = (p * Group::lanes + lane) * Group::width;
      part[p] = first < d ? load_vector<Group::width>(row + first) : Vector<T, Group::width>{};
    }
  }
  __device__ Accumulator<T> operator[](int i) const {
    return widened(part[i / Group::width].value[i % Group::width]);
  }
};

// What a query of `head` sees: its tokens, from row `ring` of the cache on, and then chunks.
template <class T>
struct SeenKeys {
  Source<T> tokens, chunks;
  int token_count, end, ring, ring_rows, head_dim;

  __device__ Source<T> operator[](int j) const {
    const bool chunk = j >= token_count;
    const int place = ring + j, token = place < ring_rows ? place : place - ring_rows;
    const std::int64_t at = static_cast<std::int64_t>(chunk ? j - token_count : token) * head_dim;
    const Source<T>& source = chunk ? chunks : tokens;
    return {source.keys + at, source.values + at, chunk};
  }
};

// Adds keys j, j + groups, ... to the softmax; nothing for those that are not there. All of them are on their
// way before the first is used.
template <class Group, class A>
__device__ inline void attend_keys(PartialSoftmax<A, Group::elements>& softmax,
                                   const A (&query)[Group::elements], const SeenKeys<typename Group::T>& seen,
                                   int j, A bias) {
  GroupRow<Group> keys[keys_at_once], values[keys_at_once];
  A logits[keys_at_once];
#pragma unroll
  for (int i = 0; i < keys_at_once; ++i) {
    const auto row = seen[min(j + i * Group::groups, seen.end - 1)];
    keys[i].load(row.keys, seen.head_dim);
    values[i].load(row.values, seen.head_dim);
    logits[i] = row.chunks ? bias : A(0);
  }
  A largest = softmax.max;
#pragma unroll
  for (int i = 0; i < keys_at_once; ++i) {
    A product = 0;
#pragma unroll
    for (int e = 0; e < Group::elements; ++e) product += query[e] * keys[i][e];
    logits[i] += warp_sum<Group::lanes>(product);
    if (j + i * Group::groups >= seen.end) logits[i] = -INFINITY;
    largest = max(largest, logits[i]);
  }
  softmax.scale_to(largest);
#pragma unroll
  for (int i = 0; i < keys_at_once; ++i) {
    const A weight = exp2(logits[i] - softmax.max);
    softmax.sum += weight;
#pragma unroll
    for (int e = 0; e < Group::elements; ++e) softmax.out[e] += weight * values[i][e];
  }
}

template <class Group, class A>
constexpr std::size_t shared_bytes() {
  return sizeof(A) * Group::groups * (Group::lanes * Group::elements + 2);
}

// Block (query of a token's head, split): out (N, H, splits, d) = the part of the split's keys, and
// log_sum_exp (N, H, splits) in units of log2, where there is more than one split.
template <class Group, class Out, class A = Accumulator<typename Group::T>>
__global__ void __launch_bounds__(threads)
    attention_cached_kernel(Out* out, A* log_sum_exp, CachedProblem<typename Group::T> x) {
  const int d = x.sizes.head_dim, row = static_cast<int>(blockIdx.x);
  const int token = row / x.sizes.heads, h = row % x.sizes.heads;
  const int sequence = x.sequences[token], n = x.positions[token];
  if (sequence < 0 || sequence >= x.all_sequences || n < 0) {
    atomicExch(x.bad_place, 2);
    return;
  }
  const int head = sequence * x.sizes.heads + h, split = static_cast<int>(blockIdx.y);
  const int first_token = static_cast<int>(x.sizes.visibility.first_token(n)), tokens = n + 1 - first_token;
  const int chunks = static_cast<int>(x.sizes.visibility.visible_chunks(n));
  if (tokens > x.sizes.token_rows || chunks > x.sizes.chunk_rows) {
    atomicExch(x.bad_place, 2);
    return;
  }
  const int keys = tokens + chunks, share = (keys + x.splits - 1) / x.splits;
  const int end = min(keys, (split + 1) * share);
  const A bias = chunk_bias_of(x.in, x.sizes, h);

  A query[Group::elements];
  GroupRow<Group> own;
  own.load(x.in.q + static_cast<std::int64_t>(row) * d, d);
#pragma unroll
  for (int i = 0; i < Group::elements; ++i) query[i] = own[i] * (log2_e<A> / sqrt(static_cast<A>(d)));
  const SeenKeys<typename Group::T> seen{source_of(x.in, x.sizes, head, false),
                                         source_of(x.in, x.sizes, head, true),
                                         tokens,
                                         end,
                                         first_token % x.sizes.token_rows,
                                         x.sizes.token_rows,
                                         d};
  const int group = static_cast<int>(threadIdx.x) / Group::lanes;
  PartialSoftmax<A, Group::elements> softmax;
  for (int j = split * share; j < end; j += Group::groups * keys_at_once)  // all lanes of a warp together
    attend_keys<Group>(softmax, query, seen, j + group, bias);

  // Merges the groups: thread i adds up element i in the order of the groups.
  A* outs = reinterpret_cast<A*>(dynamic_shared());
  constexpr int row_elements = Group::lanes * Group::elements;
  A *maxima = outs + Group::groups * row_elements, *sums = maxima + Group::groups;
  const int lane = static_cast<int>(threadIdx.x) % Group::lanes;
#pragma unroll
  for (int i = 0; i < Group::elements; ++i)
    outs[group * row_elements + (i / Group::width * Group::lanes + lane) * Group::width + i % Group::width] =
        softmax.out[i];
  if (lane == 0) {
    maxima[group] = softmax.max;
    sums[group] = softmax.sum;
  }
  __syncthreads();
  A max_of_all = -1e30, sum = 0;
  for (int g = 0; g < Group::groups; ++g) max_of_all = max(max_of_all, maxima[g]);
  for (int g = 0; g < Group::groups; ++g) sum += sums[g] * exp2(maxima[g] - max_of_all);
  const std::int64_t part = static_cast<std::int64_t>(row) * x.splits + split;
  for (int i = static_cast<int>(threadIdx.x); i < d; i += threads) {
    A element = 0;
    for (int g = 0; g < Group::groups; ++g)
      element += outs[g * row_elements + i] * exp2(maxima[g] - max_of_all);
    out[part * d + i] = static_cast<Out>(sum > 0 ? element / sum : A(0));
  }
  if (x.splits > 1 && threadIdx.x == 0) log_sum_exp[part] = sum > 0 ? max_of_all + log2(sum) : A(-1e30);
}

// out (N H, d) = the parts (N H, splits, d) of its keys, each with the weight of its log-sum-exp.
template <class T, class A = Accumulator<T>>
__global__ void __launch_bounds__(threads)
    merge_splits_kernel(T* out, const A* parts, const A* log_sum_exp, int splits, int d, std::int64_t size) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (i >= size) return;
  const A* logs = log_sum_exp + i / d * splits;
  A largest = -1e30, sum = 0, element = 0;
  for (int split = 0; split < splits; ++split) largest = max(largest, logs[split]);
  for (int split = 0; split < splits; ++split) {
    const A weight = exp2(logs[split] - largest);
    sum += weight;
    element += weight * parts[(i / d * splits + split) * d + i % d];
  }
  out[i] = static_cast<T>(element / sum);
}

// Calls body(KeyGroup{}) with lanes that load 16 bytes where rows are multiples of that.
template <class T, class Body>
void with_group(int d, const Body& body) {
  constexpr int width = vector_width<T>;
  if constexpr (!std::is_same_v<T, double>) {
    if (d % width == 0) {
      if (d <= 4 * width) return body(KeyGroup<T, width, 4, 1>{});
      if (d <= 8 * width) return body(KeyGroup<T, width, 8, 1>{});
      if (d <= 16 * width) return body(KeyGroup<T, width, 16, 1>{});
      return body(KeyGroup<T, width, 32, 256 / width / 32>{});
    }
  }
  return body(KeyGroup<T, 1, 32, 8>{});
}

}  // namespace

void CudaOps::attention_cached(Tensor out, Tensor q, const LayerCache& cache, Tensor chunk_bias,
                               const AttentionConfig& config, const CachePlaces& places) {
  const Visibility& visibility = config.visibility;
  check_cache(Device::cuda, cache, visibility.kind == AttentionKind::eva ? visibility.chunk : 0);
  check_places(Device::cuda, places, cache);
  const DType dtype = cache.keys.dtype;
  const std::int64_t N = places.sequences.dim(0), H = cache.keys.dim(1), d = cache.keys.dim(3);
  const std::int64_t R = cache.keys.dim(2), C = cache.kappa ? cache.kappa.dim(2) : 0;
  FLASHEVA_CHECK(matches_on_gpu(out, dtype, {N, H * d}) && matches_on_gpu(q, dtype, {N, H, d}));
  FLASHEVA_CHECK(C == 0 || config.chunk_bias != ChunkBias::learned || matches_on_gpu(chunk_bias, dtype, {H}));
  FLASHEVA_CHECK(d <= 256);

  const std::int64_t splits = splits_of_cache(R + C);
  const Problem sizes = make_problem({N, H, 1, R, C, d}, cache.keys, cache.kappa, config);
  dispatch(dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    const CachedProblem<T> problem{
        operands_of<T>(q, cache.keys, cache.values, cache.kappa, cache.beta, chunk_bias),
        places.sequences.as<std::int32_t>(),
        places.positions.as<std::int32_t>(),
        bad_token_,
        sizes,
        static_cast<int>(cache.keys.dim(0)),
        static_cast<int>(splits)};
    with_group<T>(static_cast<int>(d), [&]<class Group>(Group) {
      if (splits == 1)
        return launch(stream_, attention_cached_kernel<Group, T>, {N * H, splits}, threads,
                      shared_bytes<Group, A>(), out.as<T>(), static_cast<A*>(nullptr), problem);
      const auto scratch = scratch_.carve<CachedAttentionScratch>("attention over a cache", DTypeOf<A>::value,
                                                                  N * H, splits, d);
      A *parts = scratch.out.template as<A>(), *log_sum_exp = scratch.log_sum_exp.template as<A>();
      launch(stream_, attention_cached_kernel<Group, A>, {N * H, splits}, threads, shared_bytes<Group, A>(),
             parts, log_sum_exp, problem);
      launch(stream_, merge_splits_kernel<T>, {divide_up(out.size(), threads)}, threads, 0, out.as<T>(),
             parts, log_sum_exp, static_cast<int>(splits), static_cast<int>(d), out.size());
    });
  });
}

}  // namespace flasheva
