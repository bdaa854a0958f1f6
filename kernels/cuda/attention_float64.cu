#include "kernels/cuda/attention_simt.cuh"

namespace flasheva::attention {

template struct Kernels<double>;

}  // namespace flasheva::attention
