#include <gtest/gtest.h>

#include "tests/config/example.h"

namespace flasheva {
namespace {

Config with(const std::vector<std::string>& overrides) {
  return parse_config(minimal_yaml, "run.yaml", overrides);
}

TEST(Override, SetsAKey) {
  EXPECT_EQ(with({"phases.0.steps=100"}).phases[0].steps, 100);
  EXPECT_EQ(with({"phases.finetune.optimizer.lr=0.5"}).phases[1].optimizer.lr, 0.5);
  EXPECT_EQ(with({"phases.1.train=[attention, all]"}).phases[1].train.size(), 2u);
  EXPECT_EQ(with({"data.train=a=b.h5"}).data.train, "a=b.h5");
  EXPECT_EQ(with({"batch.micro=2", "batch.micro=4"}).batch.micro, 4);
}

TEST(Override, MakesTheSectionsOnItsWay) {
  const Config config = with({"model.attention.window=128", "model.attention.layers.3=full",
                              "model.attention.layers.4.window=64", "log.tensorboard=false"});
  EXPECT_EQ(config.model.attention->window, 128);
  EXPECT_EQ(config.model.attention->layers.at(3).kind, AttentionKind::full);
  EXPECT_EQ(config.model.attention->layers.at(4).window, 64);
  EXPECT_FALSE(config.log.tensorboard);
}

TEST(Override, NullTakesAFileAway) {
  const std::vector<std::string> given = {"data.validation=v.h5"};
  EXPECT_EQ(with(given).data.validation, "v.h5");
  EXPECT_EQ(with({"data.validation=v.h5", "data.validation=null"}).data.validation, "");
}

TEST(Override, MayCutAPhaseWithinItsWarmup) {
  const std::string yaml = "phases.0.schedule.warmup=20";
  EXPECT_EQ(with({yaml, "phases.0.steps=5"}).phases[0].steps, 5);
}

TEST(Override, IsNamedWhereItContradictsTheFile) {
  const std::string yaml = "model: {from: m, attention: {window: 64}}\n" + minimal_yaml;
  const std::string once =
      yaml.substr(0, yaml.find("model: {from: models")) + yaml.substr(yaml.find("data:"));
  EXPECT_EQ(error_of(once), "");
  EXPECT_EQ(error_of(once, {"model.attention.chunk=24"}),
            "override 'model.attention.chunk=24': model.attention: window 64 is not a multiple of chunk 24");
}

struct BadOverride {
  std::string assignment, message;
};

class OverrideError : public testing::TestWithParam<BadOverride> {};

TEST_P(OverrideError, NamesTheOverride) {
  const auto& [assignment, message] = GetParam();
  EXPECT_EQ(error_of(minimal_yaml, {assignment}), "override '" + assignment + "': " + message);
}

INSTANTIATE_TEST_SUITE_P(
    Table, OverrideError,
    testing::Values(
        BadOverride{"phases.9.steps=1", "phases has no entry '9'; it has 2, counted from 0"},
        BadOverride{"phases.warm.steps=1", "phases has no entry 'warm'; it has 2, counted from 0"},
        BadOverride{"phases.0.stpes=1", "unknown key 'stpes' in phases.0; did you mean 'steps'?"},
        BadOverride{"model.atention.window=1", "unknown key 'atention' in model; did you mean 'attention'?"},
        BadOverride{"nonsense.key=1",
                    "unknown key 'nonsense'; known: run, model, data, batch, phases, checkpoint, "
                    "evaluate, distributed, guards, log"},
        BadOverride{"batch.sequences=many", "batch.sequences: expected an integer, found 'many'"},
        BadOverride{"batch.sequences=0", "batch.sequences is 0; it must be an integer from 1 to 2147483647"},
        BadOverride{"batch.sequences.x=1", "batch.sequences is a value, not a section"},
        BadOverride{"model.attention.chunk=24", "model.attention: window 256 is not a multiple of chunk 24"},
        BadOverride{"batch.sequences", "expected key=value, as in phases.0.steps=100"},
        BadOverride{"=1", "expected key=value, as in phases.0.steps=100"},
        BadOverride{"batch.sequences=", "empty; a value is expected"},
        BadOverride{"batch.sequences=[1", "not YAML: end of sequence flow not found"},
        BadOverride{"batch.sequences=*a",
                    "anchors and aliases are not read; quote a value that begins with & or *"},
        BadOverride{"a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q=1", "more than 16 names"}));

}  // namespace
}  // namespace flasheva
