#include "kernels/check.h"
#include "kernels/cpu/cpu_ops.h"
namespace flasheva {
void CpuOps::zero(Tensor) { FLASHEVA_CHECK(false); }
void CpuOps::cast(Tensor, Tensor) { FLASHEVA_CHECK(false); }
void CpuOps::fill_normal(Tensor, double, std::uint64_t, std::uint32_t) { FLASHEVA_CHECK(false); }
void CpuOps::embedding_forward(Tensor, Tensor, Tensor) { FLASHEVA_CHECK(false); }
void CpuOps::embedding_backward(Tensor, Tensor, Tensor) { FLASHEVA_CHECK(false); }
void CpuOps::layernorm_forward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, double) { FLASHEVA_CHECK(false); }
void CpuOps::layernorm_backward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) { FLASHEVA_CHECK(false); }
void CpuOps::linear_forward(Tensor, Tensor, Tensor, Tensor) { FLASHEVA_CHECK(false); }
void CpuOps::linear_backward_input(Tensor, Tensor, Tensor) { FLASHEVA_CHECK(false); }
void CpuOps::linear_backward_weight(Tensor, Tensor, Tensor, Tensor) { FLASHEVA_CHECK(false); }
void CpuOps::gelu_forward(Tensor, Tensor) { FLASHEVA_CHECK(false); }
void CpuOps::gelu_backward(Tensor, Tensor, Tensor) { FLASHEVA_CHECK(false); }
void CpuOps::residual(Tensor, Tensor, Tensor, Tensor) { FLASHEVA_CHECK(false); }
void CpuOps::qkv_rotary_forward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) { FLASHEVA_CHECK(false); }
void CpuOps::qkv_rotary_backward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) { FLASHEVA_CHECK(false); }
void CpuOps::cross_entropy_forward(Tensor, Tensor, Tensor, Tensor, Tensor) { FLASHEVA_CHECK(false); }
void CpuOps::cross_entropy_backward(Tensor, Tensor, Tensor, Tensor, double) { FLASHEVA_CHECK(false); }
double CpuOps::sum_of_squares(Tensor) { FLASHEVA_CHECK(false); return 0; }
void CpuOps::adamw(Tensor, Tensor, Tensor, Tensor, Tensor, const AdamWConfig&) { FLASHEVA_CHECK(false); }
}
