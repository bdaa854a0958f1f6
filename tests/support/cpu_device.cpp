#include "tests/support/test_ops.h"

namespace flasheva {

std::unique_ptr<Ops> make_device_ops() { return make_cpu_ops(2); }
std::unique_ptr<Ops> make_test_ops() { return make_device_ops(); }

bool device_is_simulated() { return false; }

}  // namespace flasheva
