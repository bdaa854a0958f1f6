// The machine the program runs on, for those who read its figures later.
#pragma once

#include <cstdint>
#include <string>

namespace flasheva {

struct Machine {
  std::string name;  // of the host
  std::string cpu;   // as the kernel calls it
  unsigned cores = 0;
  std::uint64_t memory_bytes = 0;
};

Machine this_machine();

// Seconds since 1970.
double unix_time();

// The most memory that the process has held so far.
std::uint64_t peak_memory_bytes();

}  // namespace flasheva
