// Tokens as the tests of token files write and read them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "src/io/token_file.h"

namespace flasheva {

using Ids = std::vector<std::int32_t>;

// Token i of the fixtures that make_token_files.py wrote, and of the files written here.
inline std::int32_t token_at(std::int64_t i) { return static_cast<std::int32_t>(7 * i % 251); }

inline Ids tokens_between(std::int64_t first, std::int64_t last) {
  Ids tokens;
  for (std::int64_t i = first; i < last; ++i) tokens.push_back(token_at(i));
  return tokens;
}

struct Sequence {
  Ids inputs, targets;
  std::vector<std::uint8_t> mask;
};

inline Sequence read(TokenFile& file, std::int64_t first, std::size_t length) {
  Sequence s{Ids(length, -1), Ids(length, -1), std::vector<std::uint8_t>(length, 77)};
  file.read(first, s.inputs, s.targets, s.mask);
  return s;
}

inline std::filesystem::path fixture(const char* name) {
  return std::filesystem::path(FLASHEVA_FIXTURES) / name;
}

}  // namespace flasheva
