// Stands for kernels/cuda/dynamic_shared.cuh.
#pragma once

#include "tests/cuda_simulator/simulator.h"

namespace flasheva {

inline std::byte* dynamic_shared() { return simulator::dynamic_shared_memory(); }

}  // namespace flasheva
