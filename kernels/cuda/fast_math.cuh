// Functions that the GPU has an instruction for, without what CUDA's own add around it for results below
// 2^-126, which are 0 here.
#pragma once

#include <cuda_runtime.h>

namespace flasheva {

// 2^x to 2 ulp.
__device__ inline float fast_exp2(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(out) : "f"(x));
  return out;
}

// 1/x to 1 ulp.
__device__ inline float fast_reciprocal(float x) {
  float out;
  asm("rcp.approx.ftz.f32 %0, %1;\n" : "=f"(out) : "f"(x));
  return out;
}

}  // namespace flasheva
