#include "kernels/cpu/cpu_ops.h"
#include "tests/support/test_ops.h"

namespace flasheva {

std::unique_ptr<Ops> make_device_ops() { return make_cpu_ops(2); }
std::unique_ptr<Ops> make_test_ops() { return make_device_ops(); }

std::size_t memory_taken(Ops& ops) { return dynamic_cast<CpuOps&>(ops).own_scratch_bytes(); }

bool device_has_float64() { return true; }
std::vector<DType> on_this_device(std::initializer_list<DType> types) { return types; }

bool device_is_simulated() { return false; }
bool device_is_gpu() { return false; }

}  // namespace flasheva
