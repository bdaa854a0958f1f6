// The operations with a backward, each defined in its own *_test.cpp; fixtures_test.cpp runs them all.
#pragma once

#include "tests/kernels/operation_test.h"

namespace flasheva {

extern const Operation embedding, layernorm, linear, gelu, qkv_rotary, cross_entropy;

}  // namespace flasheva
