// Time as it passes.
#pragma once

#include <chrono>

namespace flasheva {

// Seconds of a clock that nobody sets; only differences mean something.
inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace flasheva
