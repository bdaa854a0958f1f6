// Seconds as people say them.
#pragma once

#include <string>

namespace flasheva {

// "40 s", "12 min", "3 h 05 min", "19 days".
std::string format_duration(double seconds);

}  // namespace flasheva
