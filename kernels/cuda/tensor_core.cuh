// Instructions of tensor cores and asynchronous copies (sm_80 on) under readable names.
//
// A warp multiplies 16 x 16 by 16 x 8. Of a fragment lane 4 g + t holds, two elements a register,
//     a  rows g and g + 8, columns 2t, 2t+1 (a[0], a[1]) and 2t+8, 2t+9 (a[2], a[3])
//     b  column g, rows 2t, 2t+1 (b[0]) and 2t+8, 2t+9 (b[1])
//     c  rows g (c[0], c[1]) and g + 8 (c[2], c[3]), columns 2t, 2t+1; float32
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/bf16.h"
#include "kernels/f16.h"

namespace flasheva {

// c (16 x 8) += a (16 x 16) b (16 x 8), of elements T: bf16 or f16.
template <class T>
__device__ inline void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                    std::uint32_t b1) {
#define FLASHEVA_MMA(type)                                            \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "            \
               "{%8, %9}, {%0, %1, %2, %3};\n"                        \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
  if constexpr (std::is_same_v<T, bf16>)
    FLASHEVA_MMA("bf16");
  else
    FLASHEVA_MMA("f16");
#undef FLASHEVA_MMA
}

__device__ inline std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// Four matrices of 8 x 8: lanes 8 j .. 8 j + 7 give the rows of matrix j. Lane 4 g + t gets elements (g, 2t)
// and (g, 2t+1) of matrix j in out[j].
__device__ inline void load_matrices(std::uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row)));
}

// The same, transposed: elements (2t, g) and (2t+1, g).
__device__ inline void load_matrices_transposed(std::uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row)));
}

// Both rounded to T, low in the lower half.
template <class T>
__device__ inline std::uint32_t pack(float low, float high) {
  std::uint32_t out;
  if constexpr (std::is_same_v<T, bf16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(out) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;\n" : "=r"(out) : "f"(high), "f"(low));
  return out;
}

// Starts to copy 16 bytes to shared memory, or to clear them there where there is nothing to copy.
__device__ inline void copy_async(void* shared, const void* global, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global),
               "r"(there ? 16 : 0)
               : "memory");
}
// Ends a group of copies.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
// Waits for all of this thread's groups but the newest `pending`.
template <int pending>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(pending) : "memory");
}

}  // namespace flasheva
