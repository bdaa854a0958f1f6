// What the device gives at best, measured.
#pragma once

#include "kernels/ops.h"

namespace flasheva {

// Bytes read and written a second by a copy far larger than the caches.
double measure_copy_peak(Ops& ops);
// Bytes read a second by a sum over memory far larger than the caches.
double measure_read_peak(Ops& ops);

}  // namespace flasheva
