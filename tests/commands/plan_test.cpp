// flasheva plan: the figures of the run that it expects.
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/commands/workspace.h"

namespace flasheva {
namespace {

struct Expected {
  double flops_per_step = 0, seconds = 0, flops_per_second = 0;
};

// Of a run of so many steps that its seconds have digits.
constexpr double steps = 1e9;

Expected plan(const Workspace& space, const std::string& ranks, std::string* text) {
  *text = expect_done(
      {"plan", space.at("scratch.yaml"), "phases.0.steps=1000000000", "--ranks", ranks, "--threads", "1"});
  const std::size_t line = text->find(" tokens, ");
  EXPECT_NE(line, std::string::npos) << *text;
  Expected expected;
  EXPECT_EQ(std::sscanf(text->c_str() + line,
                        " tokens, %lf model FLOPs a step, about %lf s (%*[^)]) at 70 %% of the %lf GFLOP/s",
                        &expected.flops_per_step, &expected.seconds, &expected.flops_per_second),
            3)
      << *text;
  expected.flops_per_second *= 1e9;
  return expected;
}

// Of 4 sequences one of 3 ranks has two, and all wait for it.
TEST(Plan, RanksShareTheTimeOfAStep) {
  const Workspace space;
  std::string text;
  for (const auto& [ranks, share] : {std::pair{"1", 1.0}, {"2", 0.5}, {"3", 0.5}, {"4", 0.25}}) {
    const Expected expected = plan(space, ranks, &text);
    const double seconds = share * steps * expected.flops_per_step / (0.7 * expected.flops_per_second);
    // Printed are three digits of the step's work, and whole GFLOP/s.
    EXPECT_NEAR(expected.seconds, seconds, (0.01 + 0.5e9 / expected.flops_per_second) * seconds) << text;
  }
  EXPECT_THAT(text, testing::HasSubstr("on each of 4 machines like this one, a rank on each"));
}

// The plan of a run on a GPU needs none (Program shows it none): a login node, or a notebook, tells whether a
// card is large enough.
TEST(Plan, OfAGpuThatIsNotHereTellsItsMemory) {
  const Workspace space;
  const std::string text =
      expect_done({"plan", space.at("scratch.yaml"), "run.device=cuda", "phases.0.precision=bf16"});
  EXPECT_THAT(text, testing::ContainsRegex("scratch memory +3[0-9.]+ MiB"));  // 32 of it are cuBLASLt's
  EXPECT_THAT(text, testing::HasSubstr("; for the time, run this where there is a GPU"));
  EXPECT_THAT(text, testing::ContainsRegex("\nGPU memory taken before step 0, per rank: [0-9.]+ MiB\n"));
}

}  // namespace
}  // namespace flasheva
