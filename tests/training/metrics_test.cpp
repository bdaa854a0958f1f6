#include "src/training/metrics.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <iterator>

#include "src/core/file.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

constexpr std::uint64_t everything = ~std::uint64_t{0};

TEST(MetricsLog, WritesALineAnEntryWithEveryDigit) {
  const TemporaryFolder folder;
  const double third = 1.0 / 3;
  {
    MetricsLog log(folder / "metrics.jsonl", 0);
    log.write({{"loss", third}});
    log.write({{"step", 2}});
    EXPECT_EQ(log.bytes(), std::filesystem::file_size(folder / "metrics.jsonl"));
  }
  const std::string text = read_text_file(folder / "metrics.jsonl");
  EXPECT_EQ(text, "{\"loss\":0.3333333333333333}\n{\"step\":2}\n");
}

TEST(MetricsLog, GoesOnAfterTheBytesToKeep) {
  const TemporaryFolder folder;
  std::uint64_t kept = 0;
  {
    MetricsLog log(folder / "metrics.jsonl", 0);
    log.write({{"step", 1}});
    kept = log.bytes();
    log.write({{"step", 2}});
  }
  {
    MetricsLog log(folder / "metrics.jsonl", kept);
    log.write({{"step", 3}});
  }
  EXPECT_EQ(read_text_file(folder / "metrics.jsonl"), "{\"step\":1}\n{\"step\":3}\n");
  { MetricsLog log(folder / "metrics.jsonl", everything); }
  EXPECT_EQ(read_text_file(folder / "metrics.jsonl"), "{\"step\":1}\n{\"step\":3}\n");
}

TEST(MetricsLog, NamesAFileThatCannotBeWritten) {
  const TemporaryFolder folder;
  expect_error(ExitCode::disk, "no/metrics.jsonl: cannot write: No such file or directory",
               [&] { MetricsLog log(folder / "no/metrics.jsonl", 0); });
}

// A device stands for a file that opens and cannot be cut.
TEST(MetricsLog, KeepsNoDescriptorOfAFileThatItCannotCut) {
  const auto descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  const auto before = descriptors();
  expect_error(ExitCode::disk, "/dev/full: cannot write: Invalid argument",
               [] { MetricsLog log("/dev/full", 0); });
  EXPECT_EQ(descriptors(), before);
}

// A limit on the file's size stands for a full disk: a part of the line is written, then nothing.
TEST(MetricsLog, NamesTheReasonWhyALineCannotBeWritten) {
  const TemporaryFolder folder;
  MetricsLog log(folder / "metrics.jsonl", 0);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit limit{15, before.rlim_max};
  std::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &limit);
  log.write({{"step", 1}});
  expect_error(ExitCode::disk, "metrics.jsonl: cannot write: File too large", [&] {
    log.write({{"step", 2}});
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_DFL);
}

}  // namespace
}  // namespace flasheva
