// A disk without room, played by a library that counts what is written below a folder: one line and exit code
// 4, and nothing is lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/commands/workspace.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class FullDisk : public testing::Test {
 protected:
  FullDisk() {
    fs::create_directories(disk);
    expect_done({"train", space.at("scratch.yaml")});
    expect_done(command("reference"));
  }
  // Two phases, a checkpoint after each of the 12 steps.
  Arguments command(const std::string& output) const {
    return {"train", space.at("tune.yaml"), "run.output=" + space.at(output), "checkpoint.keep=100"};
  }
  Result with_room_for(int bytes, const Arguments& arguments) const {
    return flasheva(arguments, {"LD_PRELOAD=" FLASHEVA_FAILING_FILES, "FULL_UNDER=" + disk.string(),
                                fmt::format("FULL_AFTER={}", bytes)});
  }
  void expect_no_room(int bytes, const Arguments& arguments) const {
    const Result result = with_room_for(bytes, arguments);
    EXPECT_EQ(result.code, static_cast<int>(ExitCode::disk)) << result.err;
    EXPECT_EQ(result.err.rfind("flasheva: ", 0), 0u) << result.err;
    EXPECT_EQ(result.err.find('\n'), result.err.size() - 1) << result.err;
    EXPECT_THAT(result.err, HasSubstr("No space left on device"));
  }
  std::string model(const std::string& run) const {
    return read_text_file(space.folder / run / "model/model.safetensors");
  }

  Workspace space;
  fs::path disk = space.folder / "disk";
};

TEST_F(FullDisk, LeavesTheEarlierCheckpointAndTheRunGoesOnWithSpace) {
  const Result result = with_room_for(3'500'000, command("disk/run"));
  EXPECT_EQ(result.code, static_cast<int>(ExitCode::disk)) << result.err;
  EXPECT_THAT(result.err, HasSubstr("\nflasheva: "));
  EXPECT_THAT(result.err, HasSubstr("free some space and start again\n"));
  const std::size_t done = space.column("disk/run", "loss").size();
  EXPECT_GE(done, 2u);
  EXPECT_LT(done, 12u);

  const Result rest = flasheva(command("disk/run"));
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_THAT(rest.err, HasSubstr(fmt::format("going on from {}/step-{:09}\n",
                                              space.at("disk/run/checkpoints"), done - 1)));
  EXPECT_THAT(rest.err, testing::Not(HasSubstr("warning")));
  EXPECT_TRUE(model("disk/run") == model("reference"));
  for (const char* key : {"loss", "grad_norm", "validation_loss"})
    EXPECT_EQ(space.column("disk/run", key), space.column("reference", key)) << key;
}

TEST_F(FullDisk, EndsEveryCommandThatWrites) {
  constexpr int room = 64'000;
  const std::string reference = space.at("reference/model");
  space.logits(reference, std::vector<std::int32_t>(100, 1));  // leaves tokens.safetensors; 100 KB of logits
  expect_no_room(room, {"logits", reference, "--tokens", space.at("tokens.safetensors"), "--output",
                        space.at("disk/l")});
  expect_no_room(room, {"convert", reference, space.at("disk/model")});
  for (const auto& entry : fs::directory_iterator(disk))
    EXPECT_THAT(entry.path().filename().string(), testing::Not(testing::StartsWith("model")));
  write_text(space.folder / "long.txt", some_text(100000));
  expect_no_room(room,
                 {"data", "prepare", "--input", space.at("long.txt"), "--output", space.at("disk/t.h5")});
  EXPECT_FALSE(fs::exists(disk / "t.h5"));
}

}  // namespace
}  // namespace flasheva
