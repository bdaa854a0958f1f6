// How often a test breaks something at random.
#pragma once

#include <cstdlib>

namespace flasheva {

// FLASHEVA_TRIALS, or as often as is usual.
inline int trials(int usual) {
  const char* wanted = std::getenv("FLASHEVA_TRIALS");
  return wanted != nullptr ? std::atoi(wanted) : usual;
}

}  // namespace flasheva
