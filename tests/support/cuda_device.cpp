#include "tests/support/staged_ops.h"
#include "tests/support/test_ops.h"

namespace flasheva {

std::unique_ptr<Ops> make_device_ops() { return make_cuda_ops(); }
std::unique_ptr<Ops> make_test_ops() { return std::make_unique<StagedOps>(make_device_ops()); }

}  // namespace flasheva
