// What the kernels of attention share: sizes, which keys a query sees, and where the operands of a head
// stand.
//
// Keys come from two sources, tokens (rows of k and v) and chunks (rows of kappa and beta). Queries are
// counted 0 .. T-1 in the call, tokens in rows of k. Logits are in units of log2, so that exp2 serves the
// softmax.
#pragma once

#include <numbers>

#include "kernels/attention_contract.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/scratch_layouts.h"

namespace flasheva::attention {

template <class A>
inline constexpr A log2_e = std::numbers::log2e_v<A>;
template <class A>
inline constexpr A ln_2 = std::numbers::ln2_v<A>;

// Rows first .. end - 1 of a source.
struct Rows {
  int first, end;
};

struct Problem {
  int heads, queries, tokens, chunks, head_dim;  // H, T, S, C, d
  int token_rows, chunk_rows;                    // rows of a head in k and in kappa: at least S and C
  int first_query, first_key;                    // positions
  Visibility visibility;
  ChunkBias chunk_bias;

  __device__ Rows tokens_of(int query) const {
    const std::int64_t n = first_query + query;
    return {static_cast<int>(visibility.first_token(n) - first_key), static_cast<int>(n + 1 - first_key)};
  }
  __device__ Rows chunks_of(int query) const {
    return {0, static_cast<int>(visibility.visible_chunks(first_query + query))};
  }
  __device__ Rows seen(int query, bool chunk_source) const {
    return chunk_source ? chunks_of(query) : tokens_of(query);
  }

  // Queries that see any of rows first .. last; for the backward pass, where positions begin at 0.
  __device__ Rows queries_of_tokens(int first, int last) const {
    const std::int64_t last_query = visibility.last_query_of_token(last);
    return {first, last_query < queries ? static_cast<int>(last_query) + 1 : queries};
  }
  __device__ Rows queries_of_chunks(int first) const {
    const std::int64_t query = visibility.first_query_of_chunk(first);
    return {query < queries ? static_cast<int>(query) : queries, queries};
  }
};

inline Problem make_problem(const AttentionSizes& sizes, const Tensor& k, const Tensor& kappa,
                            const AttentionConfig& config) {
  const auto narrow = [](std::int64_t size) { return static_cast<int>(size); };
  return {narrow(sizes.H),
          narrow(sizes.T),
          narrow(sizes.S),
          narrow(sizes.C),
          narrow(sizes.d),
          narrow(k.dim(2)),
          kappa ? narrow(kappa.dim(2)) : 0,
          narrow(config.first_query),
          narrow(config.first_key),
          config.visibility,
          config.chunk_bias};
}

// The operands of a call. q, k, v, kappa, beta: (B, H, rows, d); out: (B, T, H d).
template <class T>
struct Operands {
  const T *q, *k, *v, *kappa, *beta;
  const T* bias;  // (H) with ChunkBias::learned
};

template <class T>
Operands<T> operands_of(Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta, Tensor chunk_bias) {
  return {q.as<T>(), k.as<T>(), v.as<T>(), kappa.as<T>(), beta.as<T>(), chunk_bias.as<T>()};
}

// One source of keys of one sequence and head.
template <class T>
struct Source {
  const T *keys, *values;
  bool chunks;
};

// `head` counts over sequences too: b H + h.
template <class T>
__device__ inline Source<T> source_of(const Operands<T>& in, const Problem& problem, int head, bool chunks) {
  const std::int64_t rows = chunks ? problem.chunk_rows : problem.token_rows;
  const std::int64_t at = head * rows * problem.head_dim;
  return chunks ? Source<T>{in.kappa + at, in.beta + at, true} : Source<T>{in.k + at, in.v + at, false};
}

// What is added to the logits of head h's chunks.
template <class T, class A = Accumulator<T>>
__device__ inline A chunk_bias_of(const Operands<T>& in, const Problem& problem, int head) {
  if (problem.chunks == 0) return 0;
  switch (problem.chunk_bias) {
    case ChunkBias::none:
      return 0;
    case ChunkBias::log_chunk:
      return log2(static_cast<A>(problem.visibility.chunk));
    case ChunkBias::learned:
      return static_cast<A>(in.bias[head % problem.heads]) * log2_e<A>;
  }
  return 0;
}

// Row t of head `head` in a tensor (B, T, H d).
__device__ inline std::int64_t merged_row(const Problem& problem, int head, int t) {
  const std::int64_t b = head / problem.heads, h = head % problem.heads;
  return ((b * problem.queries + t) * problem.heads + h) * problem.head_dim;
}

}  // namespace flasheva::attention
