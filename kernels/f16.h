// float16 (IEEE 754 binary16) storage: 5 bits of exponent, 10 of mantissa, up to 65504. Arithmetic always
// happens in float32.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/host_device.h"

namespace flasheva {

struct f16 {
  std::uint16_t bits = 0;

  f16() = default;
  // Rounds to nearest, ties to even; 65520 and above become infinity, NaN stays NaN.
  FLASHEVA_HOST_DEVICE explicit f16(float value) {
#ifdef __CUDA_ARCH__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));  // cuda_fp16.h takes a second to include
#else
    const auto u = std::bit_cast<std::uint32_t>(value), magnitude = u & 0x7fffffffu;
    std::uint32_t out;
    if (magnitude > 0x7f800000u)  // NaN
      out = 0x7e00u;
    else if (magnitude >= 0x477ff000u)  // 65520
      out = 0x7c00u;
    else if (magnitude < 0x38800000u)  // below 2^-14: the addition rounds to the subnormals' spacing, 2^-24
      out = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) -
            std::bit_cast<std::uint32_t>(0.5f);
    else
      out = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    bits = static_cast<std::uint16_t>((u >> 16 & 0x8000u) | out);
#endif
  }
  FLASHEVA_HOST_DEVICE explicit operator float() const {
#ifdef __CUDA_ARCH__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#else
    const std::uint32_t sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 0x1fu;
    const std::uint32_t mantissa = bits & 0x3ffu;
    if (exponent == 0) {  // zero and subnormals: mantissa x 2^-24
      const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
      return sign != 0 ? -magnitude : magnitude;
    }
    const std::uint32_t biased = exponent == 0x1f ? 0xffu : exponent + 112;  // 127 - 15
    return std::bit_cast<float>(sign | biased << 23 | mantissa << 13);
#endif
  }
};
static_assert(sizeof(f16) == 2);

}  // namespace flasheva
