// Chooses the kernels of the head dimension.
#include "kernels/cuda/attention_kernels.h"

namespace flasheva::attention {

namespace {

// Calls body(MmaKernels<D>{}): the head dimensions of Pythia; others are padded to the next in shared memory.
template <class Body>
void with_kernels(int head_dim, const Body& body) {
  if (head_dim <= 64) return body(MmaKernels<64>{});
  if (head_dim <= 80) return body(MmaKernels<80>{});
  if (head_dim <= 128) return body(MmaKernels<128>{});
  return body(MmaKernels<256>{});
}

}  // namespace

template <>
void Kernels<bf16>::forward(cudaStream_t stream, bf16* out, float* log_sum_exp, const Operands<bf16>& in,
                            const Problem& problem, std::int64_t heads) {
  with_kernels(problem.head_dim,
               [&]<class K>(K) { K::forward(stream, out, log_sum_exp, in, problem, heads); });
}

template <>
std::int64_t Kernels<bf16>::query_gradient(cudaStream_t stream, bf16* dq, float* bias_parts,
                                           const Operands<bf16>& in, const OutputGradients<bf16>& gradients,
                                           const Problem& problem, std::int64_t heads) {
  with_kernels(problem.head_dim,
               [&]<class K>(K) { K::query_gradient(stream, dq, bias_parts, in, gradients, problem, heads); });
  return divide_up(problem.queries, mma_query_tile);
}

template <>
void Kernels<bf16>::token_gradient(cudaStream_t stream, bf16* dk, bf16* dv, const Operands<bf16>& in,
                                   const OutputGradients<bf16>& gradients, const Problem& problem,
                                   std::int64_t heads) {
  with_kernels(problem.head_dim, [&]<class K>(K) {
    K::key_gradient(stream, dk, dv, in, gradients, problem, Segments{1, problem.queries}, heads);
  });
}

template <>
void Kernels<bf16>::chunk_gradient(cudaStream_t stream, float* dkappa, float* dbeta, const Operands<bf16>& in,
                                   const OutputGradients<bf16>& gradients, const Problem& problem,
                                   const Segments& segments, std::int64_t heads) {
  with_kernels(problem.head_dim, [&]<class K>(K) {
    K::key_gradient(stream, dkappa, dbeta, in, gradients, problem, segments, heads);
  });
}

}  // namespace flasheva::attention
