#include "kernels/cpu/cpu_ops.h"

#include <omp.h>

#include "kernels/check.h"
#include "kernels/cpu/gemm.h"

namespace flasheva {

CpuOps::CpuOps(int threads, Bf16Products products) : bf16_products_(products) {
  FLASHEVA_CHECK(threads >= 0);
  if (threads > 0) omp_set_num_threads(threads);
  gemm_ = std::make_unique<Gemm>(scratch_);
}

CpuOps::~CpuOps() = default;

std::unique_ptr<Ops> make_cpu_ops(int threads) { return std::make_unique<CpuOps>(threads); }

}  // namespace flasheva
