// The words that a GPU's Philox makes are the host's, bit for bit. What the host's are: philox_test.cpp.
#include "tests/support/philox_words.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "kernels/philox.h"
#include "tests/support/device_tensors.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

std::vector<PhiloxWords> words_of_gpu(std::vector<PhiloxWords> counters, std::uint64_t seed) {
  const std::unique_ptr<Ops> ops = make_device_ops();
  const Tensor on_host{
      counters.data(), DType::i32, {static_cast<std::int64_t>(counters.size()), 4}, Device::cpu};
  const DeviceTensor words(*ops, on_host);
  philox_on_gpu(*ops, words, seed);
  ops->copy(on_host, words);
  return counters;
}

// Counters of every use at its limits, and any.
TEST(PhiloxWords, AGpuMakesThoseOfTheHost) {
  std::vector<PhiloxWords> counters;
  for (const std::uint32_t word : {0u, 1u, 0x7fffffffu, 0x80000000u, 0xffffffffu})
    for (std::uint32_t use = 1; use <= 4; ++use) {
      counters.push_back({{word, 0, 1, use}});
      counters.push_back({{1, word, 0, use}});
      counters.push_back({{0, 1, word, use}});
      counters.push_back({{word, word, word, word << 8 | use}});
    }
  std::mt19937 random(3);
  const auto any = [&] { return static_cast<std::uint32_t>(random()); };
  for (int i = 0; i < 5000; ++i) counters.push_back({{any(), any(), any(), any()}});
  for (const std::uint64_t seed : {0ull, 1ull, 1ull << 32, 0x299f31d0a4093822ull, ~0ull}) {
    const std::vector<PhiloxWords> words = words_of_gpu(counters, seed);
    for (std::size_t i = 0; i < counters.size(); ++i) {
      const PhiloxWords expected = philox4x32(counters[i], seed);
      ASSERT_EQ(std::memcmp(&words[i], &expected, sizeof(expected)), 0)
          << "counter " << i << " seed " << seed;
    }
  }
}

}  // namespace
}  // namespace flasheva
