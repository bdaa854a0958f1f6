#include "kernels/cuda/attention_mma.cuh"

FLASHEVA_INSTANTIATE_ATTENTION(f16, 64)
