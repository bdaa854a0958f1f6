#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/config/example.h"

namespace flasheva {
namespace {

nlohmann::json json_with(const std::vector<std::string>& overrides) {
  return to_json(parse_config(minimal_yaml, "run.yaml", overrides));
}

TEST(ConfigJson, ReadsBackAsTheSameConfiguration) {
  const std::vector<std::string> overrides = {
      "model={architecture: {vocab_size: 256, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4,"
      " intermediate_size: 96, eos_token_id: 7}, attention: {window: 48, chunk: 12, noise: {clip: 0.3},"
      " layers: {0: full, 1: {window: 24}}}}",
      "data.validation=v.h5", "phases.0.optimizer.betas=[0.1, 0.7]", "phases.0.train=['*.mlp.*']",
      "run.seed=7"};
  const nlohmann::json json = json_with(overrides);
  EXPECT_EQ(json["model"]["attention"]["layers"]["1"]["window"], 24);
  EXPECT_EQ(json["phases"][0]["optimizer"]["betas"][1], 0.7);
  EXPECT_EQ(json["data"]["validation"], "v.h5");
  EXPECT_EQ(to_json(parse_config(json.dump(1), "run.json")), json);  // JSON is YAML
  EXPECT_EQ(to_json(parse_config(json_with({}).dump(1), "run.json")), json_with({}));
}

TEST(ConfigJson, HasEveryDefault) {
  const nlohmann::json json = json_with({"model.attention={}"});
  EXPECT_EQ(json["batch"], (nlohmann::json{{"sequences", 8}, {"micro", 1}, {"recompute", "none"}}));
  EXPECT_EQ(json["log"], (nlohmann::json{{"every", 10}, {"layers_every", 100}, {"tensorboard", true}}));
  EXPECT_EQ(json["phases"][0]["schedule"],
            (nlohmann::json{{"kind", "cosine"}, {"warmup", 0}, {"min_lr_ratio", 0.1}}));
  EXPECT_EQ(json["model"]["attention"]["noise"], (nlohmann::json{{"enabled", true}, {"clip", 2.0}}));
  EXPECT_EQ(json["run"]["device"], "auto");
}

TEST(FirstDifference, NamesTheKey) {
  const auto difference = [](const std::vector<std::string>& overrides) {
    return first_difference(json_with({}), json_with(overrides));
  };
  EXPECT_EQ(difference({}), "");
  EXPECT_EQ(difference({"phases.0.optimizer.lr=0.5"}), "phases.0.optimizer.lr");
  EXPECT_EQ(difference({"phases.1.optimizer.betas=[0.9, 0.99]"}), "phases.1.optimizer.betas.1");
  EXPECT_EQ(difference({"run.seed=1", "data.sequence_length=4"}), "data.sequence_length");
  EXPECT_EQ(difference({"data.validation=v.h5"}), "data.validation");
  EXPECT_EQ(difference({"distributed.reduce_dtype=bf16"}), "distributed.reduce_dtype");
  EXPECT_EQ(difference({"guards.spike_action=skip"}), "guards.spike_action");
  EXPECT_EQ(difference({"guards.spike_window=64"}), "guards.spike_window");
  EXPECT_EQ(difference({"guards.spike_threshold=6"}), "guards.spike_threshold");
  EXPECT_EQ(difference({"model.attention={}"}), "model.attention");
  EXPECT_EQ(difference({"phases=[{name: warmup, steps: 20, train: [attention], optimizer: {lr: 1.0e-3}}]"}),
            "phases.1");
}

TEST(FirstDifference, LeavesOutWhatMayChange) {
  const nlohmann::json before = json_with({});
  nlohmann::json now =
      json_with({"run.device=cpu", "batch.micro=4", "batch.recompute=block", "checkpoint.every=7",
                 "checkpoint.keep=9", "evaluate.every=3", "evaluate.batches=2", "log.every=1",
                 "log.tensorboard=false", "distributed.timeout=7", "distributed.shard_optimizer=true",
                 "distributed.shard_gradients=true", "guards.max_skips=1", "guards.weights_every=3"});
  EXPECT_EQ(first_difference(before, now), "");
  EXPECT_EQ(first_difference(before, json_with({"batch.sequences=16"})), "batch.sequences");
  EXPECT_EQ(first_difference(before, json_with({"run.output=elsewhere", "run.name=tiny"})), "run.output");
}

}  // namespace
}  // namespace flasheva
