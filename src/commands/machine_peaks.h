// What this machine gives at best, and what this process took of it.
#pragma once

#include <cstddef>

#include "kernels/ops.h"

namespace flasheva {

// Bytes read and written a second by a copy far larger than the caches.
double measure_copy_peak(Ops& ops);
// Bytes read a second by a sum over memory far larger than the caches.
double measure_read_peak();

// The most memory that this process has held at a time, bytes; 0 where the system does not say.
std::size_t peak_memory_bytes();

}  // namespace flasheva
