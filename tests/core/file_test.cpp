#include "src/core/file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "src/core/error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

TEST(File, WritesAtomicallyAndReadsBack) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "a.txt", "first");
  write_file_atomically(folder / "a.txt", "second");
  EXPECT_EQ(read_text_file(folder / "a.txt"), "second");
  EXPECT_FALSE(std::filesystem::exists(folder / "a.txt.tmp"));
}

TEST(File, ChecksumSeesASingleBit) {
  const TemporaryFolder folder;
  std::string content(1000, 'x');
  write_file_atomically(folder / "a", content);
  const std::string before = checksum_of_file(folder / "a");
  content[500] ^= 1;
  write_file_atomically(folder / "a", content);
  EXPECT_EQ(before.size(), 32u);
  EXPECT_NE(checksum_of_file(folder / "a"), before);
}

TEST(File, FailuresNamePathAndReason) {
  const TemporaryFolder folder;
  try {
    read_text_file(folder / "missing");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::data);
    EXPECT_NE(std::string(error.what()).find("missing: cannot read: No such file"), std::string::npos);
  }
  try {
    FileWriter writer(folder / "no" / "such" / "folder");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::disk);
  }
}

TEST(File, FullDiskIsReported) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full";
  FileWriter writer("/dev/full");
  try {
    writer.write("x");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::disk);
    EXPECT_NE(std::string(error.what()).find("No space left"), std::string::npos);
  }
}

}  // namespace
}  // namespace flasheva
