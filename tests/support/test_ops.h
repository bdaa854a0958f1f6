// The device that an executable of tests is for: each is linked with one of cpu_device.cpp, cuda_device.cpp.
#pragma once

#include <memory>

#include "kernels/ops.h"

namespace flasheva {

// Its operations, on tensors of its own memory.
std::unique_ptr<Ops> make_device_ops();
// The same on tensors in host memory.
std::unique_ptr<Ops> make_test_ops();

// Whether the CPU computes each of its threads. It is slow: tests then try fewer cases.
bool device_is_simulated();

}  // namespace flasheva
