#include "tests/support/staged_ops.h"
#include "tests/support/test_ops.h"

namespace flasheva {

std::unique_ptr<Ops> make_device_ops() { return make_cuda_ops(); }
std::unique_ptr<Ops> make_test_ops() { return std::make_unique<StagedOps>(make_device_ops()); }

std::size_t memory_taken(Ops& ops) { return ops.device_memory_taken(); }

bool device_is_simulated() {
#ifdef FLASHEVA_SIMULATED
  return true;
#else
  return false;
#endif
}

bool device_is_gpu() { return !device_is_simulated(); }

bool device_has_float64() { return device_is_simulated(); }

std::vector<DType> on_this_device(std::initializer_list<DType> types) {
  std::vector<DType> known;
  for (const DType type : types)
    if (type != DType::f64 || device_has_float64()) known.push_back(type);
  return known;
}

}  // namespace flasheva
