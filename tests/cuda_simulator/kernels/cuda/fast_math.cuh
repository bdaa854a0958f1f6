// Stands for kernels/cuda/fast_math.cuh. The reciprocal is one unit off, as it may be on a GPU.
#pragma once

#include <math.h>

namespace flasheva {

inline float fast_exp2(float x) { return exp2f(x); }
inline float fast_reciprocal(float x) { return nextafterf(1.0f / x, 0.0f); }

}  // namespace flasheva
