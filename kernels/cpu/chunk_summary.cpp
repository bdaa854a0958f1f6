#include "kernels/check.h"
#include "kernels/cpu/cpu_ops.h"
namespace flasheva {
void CpuOps::chunk_summary_forward(Tensor, Tensor, Tensor, Tensor, Tensor, const EvaParameters&, const ChunkSummaryConfig&) { FLASHEVA_CHECK(false); }
void CpuOps::chunk_summary_backward(Tensor, Tensor, Tensor, const EvaParameters&, Tensor, Tensor, Tensor, Tensor, Tensor, const EvaParameters&, const ChunkSummaryConfig&) { FLASHEVA_CHECK(false); }
}
