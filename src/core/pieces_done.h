// By what a process that works on is told from one that hangs: it counts the pieces of work that it has done,
// each a matter of seconds at most: a layer's backward pass, some MiB of a file. Of all its threads.
#pragma once

#include <atomic>
#include <cstdint>

namespace flasheva {

inline std::atomic<std::int64_t> pieces_done = 0;

}  // namespace flasheva
