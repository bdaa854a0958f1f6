// The kernels of attention by element type: float32 and float64 in attention_simt.cuh, bfloat16 and float16
// on tensor cores in attention_mma.cuh. Each head dimension up to 256 is served by the next one that is
// built.
#pragma once

#include <type_traits>

#include "kernels/cuda/attention_problem.cuh"

namespace flasheva::attention {

// What the backward pass reads besides the operands. dout (B, T, H d); log_sum_exp, row_dots D (B, H, T).
template <class T>
struct OutputGradients {
  const T* dout;
  const Accumulator<T>*log_sum_exp, *row_dots;
};

inline constexpr int largest_head_dim = 256;
inline constexpr int smallest_query_tile = AttentionBackwardScratch::smallest_query_tile, mma_query_tile = 64;

template <class T>
struct Kernels {
  using A = Accumulator<T>;

  // `heads` counts over sequences: B H. out (B, T, H d), log_sum_exp (B, H, T).
  static void forward(cudaStream_t stream, T* out, A* log_sum_exp, const Operands<T>& in,
                      const Problem& problem, std::int64_t heads);

  // dq (B, H, T, d), and in bias_parts (heads, tiles), optional, the sums of dS over the chunks of each tile
  // of queries. Returns their number: at most T / smallest_query_tile, rounded up.
  static std::int64_t query_gradient(cudaStream_t stream, T* dq, A* bias_parts, const Operands<T>& in,
                                     const OutputGradients<T>& gradients, const Problem& problem,
                                     std::int64_t heads);

  // dk, dv (B, H, T, d).
  static void token_gradient(cudaStream_t stream, T* dk, T* dv, const Operands<T>& in,
                             const OutputGradients<T>& gradients, const Problem& problem, std::int64_t heads);

  // dkappa, dbeta of each segment of queries: (heads, segments, C, d).
  static void chunk_gradient(cudaStream_t stream, A* dkappa, A* dbeta, const Operands<T>& in,
                             const OutputGradients<T>& gradients, const Problem& problem,
                             const Segments& segments, std::int64_t heads);
};

// bfloat16 and float16 for head dimensions up to D, one of 64, 80 (bfloat16 alone), 128, 256.
template <class T, int D>
struct MmaKernels {
  static void forward(cudaStream_t stream, T* out, float* log_sum_exp, const Operands<T>& in,
                      const Problem& problem, std::int64_t heads);
  static void query_gradient(cudaStream_t stream, T* dq, float* bias_parts, const Operands<T>& in,
                             const OutputGradients<T>& gradients, const Problem& problem, std::int64_t heads);
  template <class Out>
  static void key_gradient(cudaStream_t stream, Out* dkeys, Out* dvalues, const Operands<T>& in,
                           const OutputGradients<T>& gradients, const Problem& problem,
                           const Segments& segments, std::int64_t heads);
};

// Calls body(MmaKernels<T, D>{}): the head dimensions of Pythia, float16 without 80, as each takes the
// compiler a while; others are padded to the next in shared memory.
template <class T, class Body>
void with_mma_kernels(int head_dim, const Body& body) {
  if (head_dim <= 64) return body(MmaKernels<T, 64>{});
  if constexpr (std::is_same_v<T, bf16>)
    if (head_dim <= 80) return body(MmaKernels<T, 80>{});
  if (head_dim <= 128) return body(MmaKernels<T, 128>{});
  return body(MmaKernels<T, 256>{});
}

template <class T>
requires(sizeof(T) == 2) struct Kernels<T> {
  static void forward(cudaStream_t stream, T* out, float* log_sum_exp, const Operands<T>& in,
                      const Problem& problem, std::int64_t heads) {
    with_mma_kernels<T>(problem.head_dim,
                        [&]<class K>(K) { K::forward(stream, out, log_sum_exp, in, problem, heads); });
  }

  static std::int64_t query_gradient(cudaStream_t stream, T* dq, float* bias_parts, const Operands<T>& in,
                                     const OutputGradients<T>& gradients, const Problem& problem,
                                     std::int64_t heads) {
    with_mma_kernels<T>(problem.head_dim, [&]<class K>(K) {
      K::query_gradient(stream, dq, bias_parts, in, gradients, problem, heads);
    });
    return divide_up(problem.queries, mma_query_tile);
  }

  static void token_gradient(cudaStream_t stream, T* dk, T* dv, const Operands<T>& in,
                             const OutputGradients<T>& gradients, const Problem& problem,
                             std::int64_t heads) {
    with_mma_kernels<T>(problem.head_dim, [&]<class K>(K) {
      K::key_gradient(stream, dk, dv, in, gradients, problem, Segments{1, problem.queries}, heads);
    });
  }

  static void chunk_gradient(cudaStream_t stream, float* dkappa, float* dbeta, const Operands<T>& in,
                             const OutputGradients<T>& gradients, const Problem& problem,
                             const Segments& segments, std::int64_t heads) {
    with_mma_kernels<T>(problem.head_dim, [&]<class K>(K) {
      K::key_gradient(stream, dkappa, dbeta, in, gradients, problem, segments, heads);
    });
  }
};

}  // namespace flasheva::attention
