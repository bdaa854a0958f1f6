#include "kernels/cuda/cuda_ops.h"
namespace flasheva {
#define MISSING throw std::logic_error(std::string(__func__) + " is missing");
void CudaOps::chunk_summary_forward(Tensor, Tensor, Tensor, Tensor, Tensor, const EvaParameters&,
                                    const ChunkSummaryConfig&) {
  MISSING
}
void CudaOps::chunk_summary_backward(Tensor, Tensor, Tensor, const EvaParameters&, Tensor, Tensor, Tensor,
                                     Tensor, Tensor, const EvaParameters&, const ChunkSummaryConfig&) {
  MISSING
}
void CudaOps::chunk_summary_cached(const LayerCache&, const EvaParameters&, const ChunkSummaryConfig&,
                                   const CachePlaces&) {
  MISSING
}
}  // namespace flasheva
