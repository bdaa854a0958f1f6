#include "kernels/cpu/cpu_ops.h"
#include "kernels/check.h"
namespace flasheva {
class Gemm {};
CpuOps::CpuOps(int) {}
CpuOps::~CpuOps() = default;
std::unique_ptr<Ops> make_cpu_ops(int threads) { return std::make_unique<CpuOps>(threads); }
}
