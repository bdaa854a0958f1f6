// bfloat16 storage: the upper half of a float32. Arithmetic always happens in float32.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/host_device.h"

namespace flasheva {

struct bf16 {
  std::uint16_t bits = 0;

  bf16() = default;
  // Rounds to nearest, ties to even; NaN stays NaN.
  FLASHEVA_HOST_DEVICE explicit bf16(float value) {
#ifdef __CUDA_ARCH__
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));  // cuda_bf16.h takes a second to include
#else
    const auto u = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const std::uint32_t quiet_nan = (u >> 16) | 0x40u;
    bits = static_cast<std::uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded);
#endif
  }
  FLASHEVA_HOST_DEVICE explicit operator float() const {
#ifdef __CUDA_ARCH__
    return __uint_as_float(static_cast<std::uint32_t>(bits) << 16);
#else
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
#endif
  }
};
static_assert(sizeof(bf16) == 2);

}  // namespace flasheva
