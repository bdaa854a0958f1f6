#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/config/example.h"

namespace flasheva {
namespace {

using testing::ElementsAre;

TEST(Config, FillsInTheDefaults) {
  const Config config = parse_config(minimal_yaml, "run.yaml");
  EXPECT_EQ(config.run.name, "tiny");
  EXPECT_EQ(config.run.output, "runs/tiny");
  EXPECT_EQ(config.run.seed, 1234u);
  EXPECT_EQ(config.run.device, DeviceChoice::automatic);
  EXPECT_EQ(config.model.from, "models/tiny");
  EXPECT_FALSE(config.model.architecture);
  EXPECT_FALSE(config.model.attention);
  EXPECT_TRUE(config.data.validation.empty());
  EXPECT_TRUE(config.data.shuffle);
  EXPECT_EQ(config.batch.micro, 1);
  EXPECT_EQ(config.batch.recompute, Recompute::none);
  EXPECT_EQ(config.checkpoint.every, 1000);
  EXPECT_EQ(config.checkpoint.keep, 3);
  EXPECT_EQ(config.evaluate.every, 500);
  EXPECT_EQ(config.evaluate.batches, 32);
  EXPECT_EQ(config.log.every, 10);
  EXPECT_EQ(config.log.layers_every, 100);
  EXPECT_TRUE(config.log.tensorboard);

  ASSERT_EQ(config.phases.size(), 2u);
  const PhaseConfig& phase = config.phases[1];
  EXPECT_EQ(phase.name, "finetune");
  EXPECT_EQ(phase.steps, 30);
  EXPECT_EQ(phase.precision, Precision::fp32);
  EXPECT_THAT(phase.train, ElementsAre("all"));
  EXPECT_EQ(phase.optimizer.lr, 1e-4);
  EXPECT_EQ(phase.optimizer.beta1, 0.9);
  EXPECT_EQ(phase.optimizer.beta2, 0.95);
  EXPECT_EQ(phase.optimizer.eps, 1e-8);
  EXPECT_EQ(phase.optimizer.weight_decay, 0.01);
  EXPECT_EQ(phase.optimizer.clip, 1.0);
  EXPECT_EQ(phase.schedule.kind, ScheduleKind::cosine);
  EXPECT_EQ(phase.schedule.warmup, 0);
  EXPECT_EQ(phase.schedule.min_lr_ratio, 0.1);
}

TEST(Config, AShareOfTheGradientsIsAlsoOneOfTheOptimizer) {
  const auto distributed = [](const char* sharding) {
    return parse_config(minimal_yaml, "run.yaml", {std::string("distributed=") + sharding}).distributed;
  };
  EXPECT_FALSE(distributed("{}").shard_optimizer);
  EXPECT_TRUE(distributed("{shard_gradients: true, shard_optimizer: false}").shard_optimizer);
  EXPECT_FALSE(distributed("{shard_optimizer: true}").shard_gradients);
}

TEST(Config, AttentionHasItsDefaults) {
  const Config config = parse_config(minimal_yaml, "run.yaml", {"model.attention={}"});
  ASSERT_TRUE(config.model.attention);
  const AttentionSettings& attention = *config.model.attention;
  EXPECT_EQ(attention.default_kind, AttentionKind::eva);
  EXPECT_TRUE(attention.layers.empty());
  EXPECT_EQ(attention.window, 256);
  EXPECT_EQ(attention.chunk, 16);
  EXPECT_EQ(attention.eva, (EvaConfig{WindowKind::block, ChunkVisibility::outside_window, Adapter::linear,
                                      Proposal::qk, ChunkBias::none, 2.0f}));
  EXPECT_TRUE(attention.noise_enabled);
}

TEST(Config, ReadsEveryKey) {
  const Config config = parse_config(R"(
run: {name: n, output: o, seed: 18446744073709551615, device: cpu}
model:
  architecture: {vocab_size: 300, hidden_size: 96, num_hidden_layers: 3, num_attention_heads: 4,
                 intermediate_size: 200, rotary_pct: 0.5, rotary_emb_base: 5000, layer_norm_eps: 1e-6,
                 use_parallel_residual: false, initializer_range: 0.05, max_position_embeddings: 64,
                 bos_token_id: null, eos_token_id: 299, hidden_act: gelu}
  attention: {default: sliding, window: 32, chunk: 8, window_kind: sliding, chunk_visibility: all_past,
              adapter: learned, proposal: zero, chunk_bias: log_chunk, noise: {enabled: false, clip: 1.5},
              layers: {0: full, 2: {kind: eva, window: 24, chunk: 4}}}
data: {train: a.h5, validation: b.h5, sequence_length: 64, shuffle: false}
batch: {sequences: 4, micro: 8, recompute: attention}
phases:
  - {name: p, steps: 7, precision: fp16, train: [attention, "*.mlp.*"],
     loss_scale: {initial: 4096, growth_interval: 50, hysteresis: 3, minimum: 16},
     optimizer: {lr: .5, betas: [0, 0.5], eps: 1e-6, weight_decay: 0, clip: 0},
     schedule: {kind: linear, warmup: 7, min_lr_ratio: 0}}
checkpoint: {every: 5, keep: 2}
evaluate: {every: 6, batches: 7}
log: {every: 8, layers_every: 9, tensorboard: false}
)",
                                     "run.yaml");
  EXPECT_EQ(config.run.name, "n");
  EXPECT_EQ(config.run.seed, 18446744073709551615u);
  EXPECT_EQ(config.run.device, DeviceChoice::cpu);
  const ModelConfig& model = *config.model.architecture;
  EXPECT_EQ(model.vocab_size, 300);
  EXPECT_EQ(model.hidden_size, 96);
  EXPECT_EQ(model.num_hidden_layers, 3);
  EXPECT_EQ(model.num_attention_heads, 4);
  EXPECT_EQ(model.intermediate_size, 200);
  EXPECT_EQ(model.rotary_dims(), 12);
  EXPECT_EQ(model.rotary_emb_base, 5000);
  EXPECT_EQ(model.layer_norm_eps, 1e-6);
  EXPECT_FALSE(model.use_parallel_residual);
  EXPECT_EQ(model.initializer_range, 0.05);
  EXPECT_EQ(model.max_position_embeddings, 64);
  EXPECT_EQ(model.bos_token_id, std::nullopt);
  EXPECT_EQ(model.eos_token_id, 299);
  EXPECT_TRUE(model.attention.empty());
  const AttentionSettings& attention = *config.model.attention;
  EXPECT_EQ(attention.default_kind, AttentionKind::sliding);
  EXPECT_EQ(attention.eva, (EvaConfig{WindowKind::sliding, ChunkVisibility::all_past, Adapter::learned,
                                      Proposal::zero, ChunkBias::log_chunk, 1.5f}));
  EXPECT_FALSE(attention.noise_enabled);
  ASSERT_EQ(attention.layers.size(), 2u);
  EXPECT_EQ(attention.layers.at(0).kind, AttentionKind::full);
  EXPECT_EQ(attention.layers.at(0).window, std::nullopt);
  EXPECT_EQ(attention.layers.at(2).window, 24);
  EXPECT_EQ(attention.layers.at(2).chunk, 4);
  EXPECT_EQ(config.data.validation, "b.h5");
  EXPECT_FALSE(config.data.shuffle);
  EXPECT_EQ(config.batch.recompute, Recompute::attention);
  EXPECT_EQ(config.batch.micro, 8);  // more than the batch: it is simply not filled
  const PhaseConfig& phase = config.phases.at(0);
  EXPECT_EQ(phase.precision, Precision::fp16);
  EXPECT_EQ(phase.loss_scale.initial, 4096);
  EXPECT_EQ(phase.loss_scale.growth_interval, 50);
  EXPECT_EQ(phase.loss_scale.hysteresis, 3);
  EXPECT_EQ(phase.loss_scale.minimum, 16);
  EXPECT_THAT(phase.train, ElementsAre("attention", "*.mlp.*"));
  EXPECT_EQ(phase.optimizer.lr, 0.5);
  EXPECT_EQ(phase.optimizer.beta1, 0);
  EXPECT_EQ(phase.optimizer.beta2, 0.5);
  EXPECT_EQ(phase.optimizer.eps, 1e-6);
  EXPECT_EQ(phase.optimizer.weight_decay, 0);
  EXPECT_EQ(phase.optimizer.clip, 0);
  EXPECT_EQ(phase.schedule.kind, ScheduleKind::linear);
  EXPECT_EQ(phase.schedule.warmup, 7);
  EXPECT_EQ(phase.schedule.min_lr_ratio, 0);
  EXPECT_EQ(config.checkpoint.every, 5);
  EXPECT_EQ(config.checkpoint.keep, 2);
  EXPECT_EQ(config.evaluate.every, 6);
  EXPECT_EQ(config.evaluate.batches, 7);
  EXPECT_EQ(config.log.every, 8);
  EXPECT_EQ(config.log.layers_every, 9);
  EXPECT_FALSE(config.log.tensorboard);
}

TEST(Config, RunIsNamedAfterItsFolder) {
  EXPECT_EQ(parse_config(minimal_yaml, "run.yaml", {"run.output=a/b/"}).run.name, "b");
  EXPECT_EQ(parse_config(minimal_yaml, "run.yaml", {"run.name=other"}).run.name, "other");
}

TEST(Config, EveryFileInConfigsLoads) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(FLASHEVA_CONFIGS)) {
    if (entry.path().extension() != ".yaml") continue;
    ++files;
    EXPECT_NO_THROW(load_config(entry.path())) << entry.path();
  }
  EXPECT_GE(files, 6);
}

TEST(Config, MissingFileIsAWrongCommandLine) {
  try {
    load_config("no/such/run.yaml");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_THAT(error.what(), testing::HasSubstr("no/such/run.yaml"));
  }
}

}  // namespace
}  // namespace flasheva
