#include "kernels/cuda/cuda_ops.h"
namespace flasheva {
#define MISSING throw std::logic_error(std::string(__func__) + " is missing");
void CudaOps::attention_cached(Tensor, Tensor, const LayerCache&, Tensor, const AttentionConfig&,
                               const CachePlaces&) {
  MISSING
}
}  // namespace flasheva

#include "kernels/cuda/attention_kernels.h"
namespace flasheva::attention {
template <>
void Kernels<bf16>::forward(cudaStream_t, bf16*, float*, const Operands<bf16>&, const Problem&,
                            std::int64_t) {
  MISSING
}
template <>
std::int64_t Kernels<bf16>::query_gradient(cudaStream_t, bf16*, float*, const Operands<bf16>&,
                                           const OutputGradients<bf16>&, const Problem&, std::int64_t) {
  MISSING
}
template <>
void Kernels<bf16>::token_gradient(cudaStream_t, bf16*, bf16*, const Operands<bf16>&,
                                   const OutputGradients<bf16>&, const Problem&, std::int64_t) {
  MISSING
}
template <>
void Kernels<bf16>::chunk_gradient(cudaStream_t, float*, float*, const Operands<bf16>&,
                                   const OutputGradients<bf16>&, const Problem&, const Segments&,
                                   std::int64_t) {
  MISSING
}
}  // namespace flasheva::attention
