#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "src/core/error.h"
#include "src/io/safetensors.h"
#include "tests/io/stored_values.h"
#include "tests/support/expect_error.h"

namespace flasheva {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

double half_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  return exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
}

std::uint16_t to_half_bits(double value) {
  const auto bytes = convert_elements(stored_vector(std::vector{value}, StoredType::F64), StoredType::F16);
  std::uint16_t bits;
  std::memcpy(&bits, bytes.data(), 2);
  return bits;
}

TEST(SafetensorsElements, EveryHalfIsReadExactlyAndWrittenBack) {
  std::vector<std::uint16_t> bits;
  for (std::uint32_t h = 0; h < 0x7c00; ++h)
    bits.insert(bits.end(), {static_cast<std::uint16_t>(h), static_cast<std::uint16_t>(h | 0x8000)});
  const std::vector<double> values = loaded(stored_vector(bits, StoredType::F16));
  for (std::size_t i = 0; i < bits.size(); i += 2) {
    ASSERT_EQ(values[i], half_value(bits[i])) << bits[i];
    ASSERT_EQ(values[i + 1], -half_value(bits[i])) << bits[i];
  }
  std::vector<float> floats(values.begin(), values.end());
  floats[1] = -0.0f;
  const auto back = convert_elements(stored_vector(floats, StoredType::F32), StoredType::F16);
  EXPECT_EQ(std::memcmp(back.data(), bits.data(), back.size()), 0);

  const std::vector<double> special =
      loaded(stored_vector(std::vector<std::uint16_t>{0x7c00, 0xfc00, 0x7e01}, StoredType::F16));
  EXPECT_EQ(special[0], std::numeric_limits<double>::infinity());
  EXPECT_EQ(special[1], -std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(special[2]));
}

// Between every two neighbours: the midpoint goes to the even one, anything off it to the nearer one. A
// double just off the midpoint is a float on it, so that rounding twice would be seen.
TEST(SafetensorsElements, DoublesRoundOnceToTheNearestHalf) {
  for (std::uint16_t h = 0; h < 0x7bff; ++h) {
    const double middle = (half_value(h) + half_value(h + 1)) / 2;
    ASSERT_EQ(to_half_bits(middle), h % 2 == 0 ? h : h + 1) << h;
    ASSERT_EQ(to_half_bits(std::nextafter(middle, 0)), h) << h;
    ASSERT_EQ(to_half_bits(std::nextafter(middle, 1e9)), h + 1) << h;
  }
  EXPECT_EQ(to_half_bits(65519.999), 0x7bff);
  EXPECT_EQ(to_half_bits(65520), 0x7c00);
  EXPECT_EQ(to_half_bits(-1e300), 0xfc00);
  EXPECT_EQ(to_half_bits(std::nan("")) & 0x7fff, 0x7e00);
}

TEST(SafetensorsElements, DoublesRoundOnceToTheNearestBfloat16) {
  const std::vector<double> values = {
      1 + 0x1p-8, 1 + 0x1p-8 + 0x1p-40, 1 + 3 * 0x1p-8 - 0x1p-40, 1 + 3 * 0x1p-8, -0x1.ffp127, -1e39, 0.1, 0};
  std::vector<bf16> out(values.size());
  load_tensor(view_of(out.data(), Shape{8}), stored_vector(values, StoredType::F64), "w");
  std::vector<float> floats;
  for (const bf16 value : out) floats.push_back(static_cast<float>(value));
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_THAT(floats,
              ElementsAre(1, 1 + 0x1p-7f, 1 + 0x1p-7f, 1 + 0x1p-6f, -infinity, -infinity, 0x1.9ap-4f, 0));
}

TEST(SafetensorsElements, AreReadFromAnyAddress) {
  std::string memory(1 + 8, '\0');
  const double value = 0.7;
  std::memcpy(memory.data() + 1, &value, 8);
  EXPECT_THAT(loaded({StoredType::F64, {1}, bytes_of(memory).subspan(1)}), ElementsAre(0.7));
}

TEST(SafetensorsElements, RefusesWhatDoesNotFit) {
  std::vector<float> out(6);
  const std::vector<float> six(6);
  EXPECT_EQ(message_of([&] {
              load_tensor(view_of(out.data(), Shape{2, 3}),
                          {StoredType::F32, {3, 2}, std::as_bytes(std::span(six))}, "f: tensor w");
            }),
            "f: tensor w: shape [3, 2] in the file, [2, 3] expected");
  EXPECT_EQ(message_of([&] {
              load_tensor(view_of(out.data(), Shape{6}),
                          {StoredType::I32, {6}, std::as_bytes(std::span(six))}, "w");
            }),
            "w: stored as I32, which does not convert to float32");
  std::vector<std::int32_t> ids(2);
  EXPECT_EQ(message_of([&] {
              load_tensor(view_of(ids.data(), Shape{2}),
                          {StoredType::F32, {2}, std::as_bytes(std::span(six)).first(8)}, "w");
            }),
            "w: stored as F32, which does not convert to int32");
  EXPECT_EQ(message_of([&] {
              load_tensor(view_of(ids.data(), Shape{2}),
                          stored_vector(std::vector<std::int64_t>{5, -2147483649}, StoredType::I64), "w");
            }),
            "w: element 1, -2147483649, does not fit 32 bits");
}

}  // namespace
}  // namespace flasheva
