#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/config/config.h"

namespace flasheva {
namespace {

using testing::ElementsAre;

TEST(Names, AreThoseOfTheConfiguration) {
  EXPECT_THAT(names_of<AttentionKind>(), ElementsAre("full", "sliding", "eva"));
  EXPECT_THAT(names_of<WindowKind>(), ElementsAre("block", "sliding"));
  EXPECT_THAT(names_of<ChunkVisibility>(), ElementsAre("outside_window", "all_past"));
  EXPECT_THAT(names_of<Adapter>(), ElementsAre("none", "linear", "linear_layernorm", "learned"));
  EXPECT_THAT(names_of<Proposal>(), ElementsAre("qk", "k", "zero"));
  EXPECT_THAT(names_of<ChunkBias>(), ElementsAre("none", "log_chunk", "learned"));
  EXPECT_THAT(names_of<DeviceChoice>(), ElementsAre("auto", "cpu", "cuda"));
  EXPECT_THAT(names_of<Precision>(), ElementsAre("fp32", "bf16", "fp16"));
  EXPECT_THAT(names_of<Recompute>(), ElementsAre("none", "attention", "block"));
  EXPECT_THAT(names_of<ScheduleKind>(), ElementsAre("constant", "linear", "cosine"));
}

TEST(Names, GoThereAndBack) {
  EXPECT_EQ(parse_name<Adapter>("linear_layernorm"), Adapter::linear_layernorm);
  EXPECT_STREQ(to_string(Adapter::linear_layernorm), "linear_layernorm");
  EXPECT_EQ(parse_name<WindowKind>("sliding"), WindowKind::sliding);
  EXPECT_STREQ(to_string(AttentionKind::eva), "eva");
  EXPECT_EQ(parse_name<DeviceChoice>("auto"), DeviceChoice::automatic);
  EXPECT_EQ(parse_name<Adapter>("Linear"), std::nullopt);
  EXPECT_EQ(parse_name<Proposal>(""), std::nullopt);
}

}  // namespace
}  // namespace flasheva
