#include "kernels/cuda/cuda_ops.h"
namespace flasheva {
#define MISSING throw std::logic_error(std::string(__func__) + " is missing");
void CudaOps::attention_forward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                                const AttentionConfig&) {
  MISSING
}
void CudaOps::attention_backward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                                 Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, const AttentionConfig&) {
  MISSING
}
void CudaOps::attention_cached(Tensor, Tensor, const LayerCache&, Tensor, const AttentionConfig&,
                               const CachePlaces&) {
  MISSING
}
}  // namespace flasheva
