#include "kernels/check.h"
#include "kernels/cpu/cpu_ops.h"
namespace flasheva {
void CpuOps::attention_forward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, const AttentionConfig&) { FLASHEVA_CHECK(false); }
void CpuOps::attention_backward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, const AttentionConfig&) { FLASHEVA_CHECK(false); }
}
