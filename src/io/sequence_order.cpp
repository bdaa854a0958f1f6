// The permutation is a Feistel network over 2h bits, the fewest even number that holds all sequences:
//     (left, right) <- (right, left xor F(right)),  F(x) = the low h bits of mix(x, round, epoch, seed)
// which is a bijection whatever F is. Numbers beyond the last sequence are sent through again (cycle
// walking): the domain is less than four times too large, so four turns are expected at most.
#include "src/io/sequence_order.h"

#include <bit>

#include "kernels/check.h"

namespace flasheva {

namespace {

constexpr std::uint64_t rounds = 8;

// A bijective mixing of 64 bits in which every input bit changes about half of the output bits: Stafford's
// variant 13 of the MurmurHash3 finaliser, as in SplitMix64.
constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

constexpr std::uint64_t golden_ratio = 0x9e3779b97f4a7c15u;  // keeps mix() away from its fixed point 0

std::uint64_t feistel(std::uint64_t x, int half_bits, std::uint64_t key) {
  const std::uint64_t low = (std::uint64_t{1} << half_bits) - 1;
  std::uint64_t left = x >> half_bits, right = x & low;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    const std::uint64_t turned = left ^ (mix(key + golden_ratio * (rounds * right + round + 1)) & low);
    left = right;
    right = turned;
  }
  return left << half_bits | right;
}

}  // namespace

SequenceOrder::SequenceOrder(std::int64_t sequences, bool shuffle, std::uint64_t seed)
    : sequences_(static_cast<std::uint64_t>(sequences)), shuffle_(shuffle), seed_(seed) {
  FLASHEVA_CHECK(sequences >= 1);
  half_bits_ = (std::bit_width(sequences_ - 1) + 1) / 2;
}

std::int64_t SequenceOrder::operator()(std::int64_t position) const {
  FLASHEVA_CHECK(position >= 0);
  const std::uint64_t epoch = static_cast<std::uint64_t>(position) / sequences_;
  std::uint64_t sequence = static_cast<std::uint64_t>(position) % sequences_;
  if (shuffle_) {
    const std::uint64_t key = mix(mix(seed_ + golden_ratio) + golden_ratio * (epoch + 1));
    do {
      sequence = feistel(sequence, half_bits_, key);
    } while (sequence >= sequences_);
  }
  return static_cast<std::int64_t>(sequence);
}

}  // namespace flasheva
