// A run in which one write, fsync or rename fails: it ends with exit code 4 and one line, and the next start
// goes on to the same bits as a run that nothing disturbed. FLASHEVA_EVERY_CALL=1 tries every call, not one
// of some.
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "tests/commands/workspace.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;

class FailingFiles : public testing::TestWithParam<int> {
 protected:
  static Arguments command(const Workspace& space, const std::string& output) {
    return {"train", space.at("tune.yaml"), "run.output=" + space.at(output), "checkpoint.every=4"};
  }
  static std::string model(const Workspace& space, const std::string& output) {
    return read_text_file(space.folder / output / "model/model.safetensors");
  }
};

TEST_P(FailingFiles, EndTheRunWithOneLineAndLoseNothing) {
  const Workspace space;
  expect_done({"train", space.at("scratch.yaml")});
  expect_done(command(space, "reference"));
  const int stride = std::getenv("FLASHEVA_EVERY_CALL") != nullptr ? 1 : 37;
  int failed = 0;
  for (int call = 1;; call += stride) {
    fs::remove_all(space.folder / "run");
    fs::remove(space.folder / "told");
    const Result result = flasheva(command(space, "run"),
                                   {"LD_PRELOAD=" FLASHEVA_FAILING_FILES, "FAIL_UNDER=" + space.at("run"),
                                    fmt::format("FAIL_AT={}", call), fmt::format("FAIL_WITH={}", GetParam()),
                                    "FAIL_TOLD=" + space.at("told")});
    if (!fs::exists(space.folder / "told")) {
      EXPECT_EQ(result.code, 0) << result.err;
      break;  // the run makes fewer calls
    }
    ++failed;
    ASSERT_EQ(result.code, static_cast<int>(ExitCode::disk)) << "call " << call << ": " << result.err;
    const std::size_t line = result.err.find("flasheva: ");
    ASSERT_NE(line, std::string::npos) << result.err;
    EXPECT_EQ(result.err.find('\n', line), result.err.size() - 1) << result.err;
    const Result rest = flasheva(command(space, "run"));
    ASSERT_EQ(rest.code, 0) << "after call " << call << ": " << rest.err;
    EXPECT_TRUE(model(space, "run") == model(space, "reference")) << "call " << call;
    for (const char* key : {"loss", "grad_norm"})
      EXPECT_EQ(space.column("run", key), space.column("reference", key)) << "call " << call;
  }
  std::printf("%d calls failed, one in each run\n", failed);
  EXPECT_GT(failed, 5);
}

// Every flush of a file of a checkpoint takes 0.1 s, a step some ms.
TEST(SlowFiles, AreWrittenBesideTheStepsAndAKilledWriteLosesNothing) {
  const Workspace space;
  const auto command = [&](const std::string& output) {
    return Arguments{"train", space.at("tune.yaml"), "run.output=" + space.at(output), "phases.0.steps=12",
                     "checkpoint.every=4"};
  };
  expect_done({"train", space.at("scratch.yaml")});
  expect_done(command("reference"));

  const fs::path checkpoints = space.folder / "run/checkpoints";
  Program program(command("run"),
                  {"LD_PRELOAD=" FLASHEVA_FAILING_FILES, "SLOW_UNDER=" + checkpoints.string()});
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  const auto went_on = [&] {  // past step 8, whose weights are on their way and whose moments are not
    const std::vector<double> steps = space.column("run", "run_step");
    const fs::path half = checkpoints / "writing-step-000000008";
    return !steps.empty() && steps.back() >= 10 && fs::exists(half) &&
           !fs::exists(half / "optimizer.safetensors");
  };
  while (!went_on() && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  program.signal(SIGKILL);
  EXPECT_THAT(program.wait().err, testing::HasSubstr("s until the checkpoint before was written"));
  ASSERT_TRUE(went_on());
  EXPECT_TRUE(fs::exists(checkpoints / "step-000000004"));
  EXPECT_TRUE(fs::exists(checkpoints / "step-000000006"));
  EXPECT_FALSE(fs::exists(checkpoints / "step-000000008"));
  EXPECT_EQ(space.column("run", "run_step").back(), 10);  // no more steps than checkpoint.every are lost

  const Result rest = flasheva(command("run"));
  ASSERT_EQ(rest.code, 0) << rest.err;
  EXPECT_THAT(rest.err, testing::HasSubstr("going on from " + (checkpoints / "step-000000006").string()));
  EXPECT_TRUE(read_text_file(space.folder / "run/model/model.safetensors") ==
              read_text_file(space.folder / "reference/model/model.safetensors"));
}

INSTANTIATE_TEST_SUITE_P(Errors, FailingFiles, testing::Values(EIO, ENOSPC),
                         [](const auto& test) { return std::string(test.param == EIO ? "EIO" : "ENOSPC"); });

}  // namespace
}  // namespace flasheva
