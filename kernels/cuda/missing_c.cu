#include "kernels/cuda/cuda_ops.h"
namespace flasheva {
#define MISSING throw std::logic_error(std::string(__func__) + " is missing");
void CudaOps::attention_cached(Tensor, Tensor, const LayerCache&, Tensor, const AttentionConfig&,
                               const CachePlaces&) {
  MISSING
}
}  // namespace flasheva

