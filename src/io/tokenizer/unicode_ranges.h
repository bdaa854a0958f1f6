// Ranges of code points, first and last, that make encoding the same as with Python's `tokenizers` 0.23,
// whichever Unicode version the system's PCRE2 and utf8proc know. tests/python/tokenizer_parity.py --long
// compares every code point.
#pragma once

#include <algorithm>
#include <array>
#include <span>

namespace flasheva {

struct CodePointRange {
  char32_t first, last;
};

// Unicode's White_Space. PCRE2's \s has U+180E in it and not U+0085.
inline constexpr std::array white_space_ranges = std::to_array<CodePointRange>({{0x9, 0xd},
                                                                                {0x20, 0x20},
                                                                                {0x85, 0x85},
                                                                                {0xa0, 0xa0},
                                                                                {0x1680, 0x1680},
                                                                                {0x2000, 0x200a},
                                                                                {0x2028, 0x2029},
                                                                                {0x202f, 0x202f},
                                                                                {0x205f, 0x205f},
                                                                                {0x3000, 0x3000}});

// Letters, decimal digits, other numbers and marks of Unicode 15 and 16, which the package knows and
// PCRE2 10.42 (Unicode 14) does not.
inline constexpr std::array newer_letter_ranges = std::to_array<CodePointRange>(
    {{0x1c89, 0x1c8a},   {0xa7cb, 0xa7cd},   {0xa7da, 0xa7dc},   {0x105c0, 0x105f3}, {0x10d4a, 0x10d65},
     {0x10d6f, 0x10d85}, {0x10ec2, 0x10ec4}, {0x1123f, 0x11240}, {0x11380, 0x11389}, {0x1138b, 0x1138b},
     {0x1138e, 0x1138e}, {0x11390, 0x113b5}, {0x113b7, 0x113b7}, {0x113d1, 0x113d1}, {0x113d3, 0x113d3},
     {0x11bc0, 0x11be0}, {0x11f02, 0x11f02}, {0x11f04, 0x11f10}, {0x11f12, 0x11f33}, {0x1342f, 0x1342f},
     {0x13441, 0x13446}, {0x13460, 0x143fa}, {0x16100, 0x1611d}, {0x16d40, 0x16d6c}, {0x18cff, 0x18cff},
     {0x1b132, 0x1b132}, {0x1b155, 0x1b155}, {0x1df25, 0x1df2a}, {0x1e030, 0x1e06d}, {0x1e4d0, 0x1e4eb},
     {0x1e5d0, 0x1e5ed}, {0x1e5f0, 0x1e5f0}, {0x2b739, 0x2b739}, {0x2ebf0, 0x2ee5d}, {0x31350, 0x323af}});
inline constexpr std::array newer_digit_ranges = std::to_array<CodePointRange>({{0x10d40, 0x10d49},
                                                                                {0x116d0, 0x116e3},
                                                                                {0x11bf0, 0x11bf9},
                                                                                {0x11f50, 0x11f59},
                                                                                {0x16130, 0x16139},
                                                                                {0x16d70, 0x16d79},
                                                                                {0x1ccf0, 0x1ccf9},
                                                                                {0x1e4f0, 0x1e4f9},
                                                                                {0x1e5f1, 0x1e5fa}});
inline constexpr std::array newer_number_ranges = std::to_array<CodePointRange>({{0x1d2c0, 0x1d2d3}});
inline constexpr std::array newer_mark_ranges = std::to_array<CodePointRange>(
    {{0x897, 0x897},     {0xcf3, 0xcf3},     {0xece, 0xece},     {0x10d69, 0x10d6d}, {0x10efc, 0x10eff},
     {0x11241, 0x11241}, {0x113b8, 0x113c0}, {0x113c2, 0x113c2}, {0x113c5, 0x113c5}, {0x113c7, 0x113ca},
     {0x113cc, 0x113d0}, {0x113d2, 0x113d2}, {0x113e1, 0x113e2}, {0x11f00, 0x11f01}, {0x11f03, 0x11f03},
     {0x11f34, 0x11f3a}, {0x11f3e, 0x11f42}, {0x11f5a, 0x11f5a}, {0x13440, 0x13440}, {0x13447, 0x13455},
     {0x1611e, 0x1612f}, {0x1e08f, 0x1e08f}, {0x1e4ec, 0x1e4ef}, {0x1e5ee, 0x1e5ef}});

// Combining characters (and U+11938, which is composed) that utf8proc knows and the package's NFC, of Unicode
// 9, does not: there they neither move nor compose.
inline constexpr std::array inert_mark_ranges = std::to_array<CodePointRange>(
    {{0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},     {0xc3c, 0xc3c},
     {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},
     {0xa82c, 0xa82c},   {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50},
     {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
     {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0},
     {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45},
     {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136},
     {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}});

constexpr bool is_in(char32_t code, std::span<const CodePointRange> ranges) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const CodePointRange& range) { return code >= range.first && code <= range.last; });
}

constexpr bool is_white_space(char32_t code) { return is_in(code, white_space_ranges); }

}  // namespace flasheva
