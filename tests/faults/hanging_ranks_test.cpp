// A rank that hangs where nobody knows how long it takes ends the run; one that takes long does not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/commands/ranks.h"
#include "tests/training/training_run.h"

namespace flasheva {
namespace {

class HangingRanks : public testing::TestWithParam<const char*> {
 protected:
  HangingRanks() { write_fixture_tokens(folder / "tokens.h5"); }

  Result run(const std::string& trouble) const {
    return run_ranks(3, {folder.path().string(), trouble, GetParam()});
  }

  TemporaryFolder folder{memory_folder()};
};

TEST_P(HangingRanks, AreNamed) {
  const Result result = run("hangs");
  EXPECT_EQ(result.code, static_cast<int>(ExitCode::peer_lost)) << result.err;
  const int rank = GetParam() == std::string("a checkpoint") ? 0 : 1;
  EXPECT_THAT(result.err,
              testing::ContainsRegex(fmt::format("rank [012]: rank {} \\(process [0-9]+ on ", rank)));
  EXPECT_THAT(result.err, testing::ContainsRegex(
                              fmt::format("has done nothing for [234] s, during {}, and", GetParam())));
}

TEST_P(HangingRanks, AreNotThoseThatTakeLong) {
  const Result result = run("is-slow");
  EXPECT_EQ(result.code, 0) << result.err;
}

INSTANTIATE_TEST_SUITE_P(During, HangingRanks,
                         testing::Values("validation", "the first step of phase attention_warmup",
                                         "a checkpoint"));

}  // namespace
}  // namespace flasheva
