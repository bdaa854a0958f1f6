// The device that an executable of tests is for: each is linked with one of cpu_device.cpp, cuda_device.cpp.
#pragma once

#include <initializer_list>
#include <memory>
#include <vector>

#include "kernels/ops.h"

namespace flasheva {

// Its operations, on tensors of its own memory.
std::unique_ptr<Ops> make_device_ops();
// The same on tensors in host memory.
std::unique_ptr<Ops> make_test_ops();

// Bytes of the device's memory that are taken; on the CPU, by operations alone beside what is lent to them.
std::size_t memory_taken(Ops& ops);

// Whether it computes in float64, as everything but a GPU does (kernels/dispatch.h).
bool device_has_float64();
// Of these types, those that it has.
std::vector<DType> on_this_device(std::initializer_list<DType> types);
#define FLASHEVA_NEEDS_FLOAT64() \
  if (!device_has_float64()) GTEST_SKIP() << "float64 runs on the CPU and in the simulator"

// Whether the CPU computes each of its threads. It is slow: tests then try fewer cases.
bool device_is_simulated();
// Whether it is a GPU itself. The operations do not tell: those on host memory say Device::cpu everywhere.
bool device_is_gpu();

}  // namespace flasheva
