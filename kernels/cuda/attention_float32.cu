#include "kernels/cuda/attention_simt.cuh"

namespace flasheva::attention {

template struct Kernels<float>;

}  // namespace flasheva::attention
