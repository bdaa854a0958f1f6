#include "src/io/event_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/event_reader.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

using testing::ElementsAre;
using testing::Pair;

TEST(EventFile, BeginsWithItsVersion) {
  const TemporaryFolder folder;
  EventFile file(folder / "events", 1700000000.25);
  const std::vector<ReadEvent> events = read_event_file(folder / "events");
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].file_version, "brain.Event:2");
  EXPECT_EQ(events[0].seconds, 1700000000.25);
}

TEST(EventFile, KeepsScalarsStepsAndTimes) {
  const TemporaryFolder folder;
  EventFile file(folder / "events", 0);
  file.write_scalars({1.5, 0}, {{"loss", 0.1f}, {"norm/layer_3", -2.5e-30f}});
  file.write_scalars({2.5, std::int64_t{1} << 40}, {{"loss", INFINITY}});
  const std::vector<ReadEvent> events = read_event_file(folder / "events");
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[1].seconds, 1.5);
  EXPECT_EQ(events[1].step, 0);
  EXPECT_THAT(events[1].scalars, ElementsAre(Pair("loss", 0.1f), Pair("norm/layer_3", -2.5e-30f)));
  EXPECT_EQ(events[2].seconds, 2.5);
  EXPECT_EQ(events[2].step, std::int64_t{1} << 40);
  EXPECT_THAT(events[2].scalars, ElementsAre(Pair("loss", INFINITY)));
}

TEST(EventFile, KeepsTextOfAnyLength) {
  const TemporaryFolder folder;
  EventFile file(folder / "events", 0);
  const std::string text = "# run\n" + std::string(70000, 'x') + "\xc3\xa9";
  file.write_text({3, 4}, "config", text);
  const std::vector<ReadEvent> events = read_event_file(folder / "events");
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].step, 4);
  EXPECT_THAT(events[1].texts, ElementsAre(Pair("config", text)));
}

TEST(EventFile, SaysWhereASessionBegins) {
  const TemporaryFolder folder;
  EventFile file(folder / "events", 0);
  file.begin_session({3, 11});
  const std::vector<ReadEvent> events = read_event_file(folder / "events");
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].session_status, 1);
  EXPECT_EQ(events[1].step, 11);
}

TEST(EventFile, NamesAFileThatCannotBeWritten) {
  const TemporaryFolder folder;
  expect_error(ExitCode::disk, "no/events: cannot write: No such file or directory",
               [&] { EventFile file(folder / "no/events", 0); });
}

TEST(EventFile, NamesAFullDisk) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP();
  expect_error(ExitCode::disk, "/dev/full: cannot write: No space left on device; free some space",
               [] { EventFile file("/dev/full", 0); });
}

}  // namespace
}  // namespace flasheva
