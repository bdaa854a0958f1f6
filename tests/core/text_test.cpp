#include "src/core/text.h"

#include <gtest/gtest.h>

namespace flasheva {
namespace {

TEST(NearestName, FindsTheMisspeltOne) {
  const std::vector<std::string> names = {"window", "window_kind", "chunk", "adapter"};
  EXPECT_EQ(nearest_name("windw", names), "window");
  EXPECT_EQ(nearest_name("adaptor", names), "adapter");
  EXPECT_EQ(nearest_name("completely_else", names), "");
}

TEST(Utf8, AcceptsWellFormedTextOnly) {
  EXPECT_TRUE(is_valid_utf8("plain"));
  EXPECT_TRUE(is_valid_utf8("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"));
  EXPECT_FALSE(is_valid_utf8("\xc0\xaf"));          // overlong
  EXPECT_FALSE(is_valid_utf8("\xe0\x80\xaf"));      // overlong
  EXPECT_FALSE(is_valid_utf8("\xed\xa0\x80"));      // surrogate
  EXPECT_FALSE(is_valid_utf8("\xf4\x90\x80\x80"));  // beyond U+10FFFF
  EXPECT_FALSE(is_valid_utf8("\xe2\x82"));          // cut
  EXPECT_FALSE(is_valid_utf8("\x80"));
}

TEST(Printable, EscapesWhatWouldBreakALine) {
  EXPECT_EQ(printable("a\nb\x01\xff"), "a\\x0ab\\x01\\xff");
  EXPECT_EQ(printable("caf\xc3\xa9"), "caf\xc3\xa9");
  EXPECT_EQ(printable("a\xc2\x85\xc2\xa0"), "a\\xc2\\x85\xc2\xa0");  // the next line; a no-break space
  EXPECT_EQ(printable(std::string(200, 'x'), 10), "xxxxxxxxxx...");
}

TEST(FormatBytes, PicksTheUnit) {
  EXPECT_EQ(format_bytes(17), "17 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(std::size_t{3} << 30), "3.0 GiB");
}

}  // namespace
}  // namespace flasheva
