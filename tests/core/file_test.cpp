#include "src/core/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

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

// As /dev/null and /dev/stdout do, when root names them.
TEST(File, PipesAreWrittenToAndStay) {
  const TemporaryFolder folder;
  const std::filesystem::path pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const int reader = ::open(pipe.c_str(), O_RDWR | O_NONBLOCK);
  write_file_atomically(pipe, "text");
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
  std::array<char, 5> read{};
  EXPECT_EQ(::read(reader, read.data(), 4), 4);
  EXPECT_STREQ(read.data(), "text");
  ::close(reader);
}

TEST(File, LinksStayAndLeadToTheNewContent) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "a.txt", "first");
  std::filesystem::create_symlink("a.txt", folder / "link.txt");
  write_file_atomically(folder / "link.txt", "second");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link.txt"));
  EXPECT_EQ(read_text_file(folder / "a.txt"), "second");
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
    read_text_file("/dev/null");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "/dev/null: cannot read: not a regular file");
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
