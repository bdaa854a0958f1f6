#include "kernels/cuda/attention_mma.cuh"

FLASHEVA_INSTANTIATE_ATTENTION(bf16, 256)
