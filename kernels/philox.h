// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a keyed bijection of
// 128-bit counters into four random 32-bit words. Without state: any number can be had at any time, in any
// order. Plain inline functions, so that the CPU and CUDA make the same words.
//
// What a counter's words hold; the key is the seed, low half first. Different uses carry different tags in
// the lowest byte of the last word, so no two of them ever draw the same counter:
//
//     use          word 0                      word 1         word 2     word 3
//     chunk noise  chunk * ceil(d / 4) + j     step           sequence   layer << 20 | head << 8 | 1
//     fill_normal  element / 4, low half       its high half  stream     2
//     sampling     position                    sequence       0          3
//     --verify     number of the token         0              0          4
//
// Each is injective for layer and head < 2^12 and every 32-bit step, sequence (its place in the global
// batch), stream and word 0.
#pragma once

#include <math.h>

#include <cstdint>

#include "kernels/host_device.h"

namespace flasheva {

struct PhiloxWords {
  std::uint32_t word[4];
};

struct FourNormals {
  float value[4];
};

FLASHEVA_HOST_DEVICE inline PhiloxWords philox4x32(PhiloxWords counter, std::uint64_t seed) {
  std::uint32_t key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * counter.word[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * counter.word[2];
    counter = {{static_cast<std::uint32_t>(product1 >> 32) ^ counter.word[1] ^ key0,
                static_cast<std::uint32_t>(product1),
                static_cast<std::uint32_t>(product0 >> 32) ^ counter.word[3] ^ key1,
                static_cast<std::uint32_t>(product0)}};
    key0 += 0x9E3779B9u;  // the golden ratio
    key1 += 0xBB67AE85u;  // sqrt(3) - 1
  }
  return counter;
}

// Box-Muller as cuRAND does it: u in (0, 1], the angle in (0, 2 pi]; the sine first, then the cosine. The
// products with powers of two are exact, so that fused multiply-adds change nothing.
FLASHEVA_HOST_DEVICE inline FourNormals normals_of(PhiloxWords words) {
  FourNormals out;
  for (int pair = 0; pair < 4; pair += 2) {
    const float u = static_cast<float>(words.word[pair]) * 0x1p-32f + 0x1p-33f;
    const float turn = static_cast<float>(words.word[pair + 1]) * 0x1p-32f + 0x1p-33f;
    const float angle = turn * 6.28318530717958647692f;
    const float radius = sqrtf(-2.0f * logf(u));
    out.value[pair] = radius * sinf(angle);
    out.value[pair + 1] = radius * cosf(angle);
  }
  return out;
}

// eps of dimensions 4j .. 4j+3 of one chunk, before clipping: N(0, 1).
FLASHEVA_HOST_DEVICE inline FourNormals chunk_noise(std::uint64_t seed, std::uint32_t step,
                                                    std::uint32_t layer, std::uint32_t sequence,
                                                    std::uint32_t head, std::uint32_t chunk,
                                                    std::uint32_t head_dim, std::uint32_t j) {
  const std::uint32_t block = chunk * ((head_dim + 3) / 4) + j;
  return normals_of(philox4x32({{block, step, sequence, layer << 20 | head << 8 | 1u}}, seed));
}

// Elements 4 block .. 4 block + 3 of a tensor of standard normals.
FLASHEVA_HOST_DEVICE inline FourNormals stream_normals(std::uint64_t seed, std::uint32_t stream,
                                                       std::uint64_t block) {
  return normals_of(philox4x32(
      {{static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), stream, 2u}}, seed));
}

}  // namespace flasheva
