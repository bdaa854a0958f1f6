// Preconditions of operations: a violation is a bug in the caller, named with expression, file and line.
#pragma once

#include <stdexcept>
#include <string>

#define FLASHEVA_CHECK(condition)                                                                       \
  do {                                                                                                  \
    if (!(condition))                                                                                   \
      throw std::logic_error(std::string(__FILE__) + ":" + std::to_string(__LINE__) + ": " + __func__ + \
                             ": not " #condition);                                                      \
  } while (false)
