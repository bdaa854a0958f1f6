// The first step of a phase: what operations take while they run is in the plan. In each case another
// operation takes the most.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "src/model/initialize.h"
#include "src/training/trainer.h"
#include "tests/support/test_ops.h"
#include "tests/training/training_run.h"

namespace flasheva {
namespace {

struct Case {
  std::string name;
  Overrides overrides;
  std::function<void(ModelConfig&)> change = [](ModelConfig&) {};
};

void PrintTo(const Case& tested, std::ostream* out) { *out << tested.name; }

// The model's last layer alone, in other sizes.
std::function<void(ModelConfig&)> of_one_layer(std::int64_t hidden_size, std::int64_t intermediate_size) {
  return [=](ModelConfig& model) {
    model.num_hidden_layers = 1;
    model.attention = {model.attention.back()};
    model.hidden_size = hidden_size;
    model.intermediate_size = intermediate_size;
  };
}

Overrides in(const std::string& precision, Overrides overrides) {
  for (const char* phase : {"phases.0.precision=", "phases.1.precision="})
    overrides.push_back(phase + precision);
  return overrides;
}

const Case cases[] = {
    {"full", in("fp32", {"model.attention.default=full", "data.sequence_length=37"})},
    {"sliding", in("fp16", {"model.attention.default=sliding", "data.sequence_length=21"})},
    {"eva", in("bf16", {"data.sequence_length=39"})},
    {"eva_in_float32", in("fp32", {"data.sequence_length=39", "batch.recompute=attention"})},
    {"eva_learned", in("fp32", {"model.attention.adapter=learned", "data.sequence_length=39"})},
    {"eva_layernorm", in("fp16", {"model.attention.adapter=linear_layernorm", "model.attention.proposal=k",
                                  "batch.recompute=block", "data.sequence_length=23"})},
    {"eva_below_one_chunk", in("bf16", {"data.sequence_length=3"})},
    {"rows_that_vectors_do_not_divide", in("bf16", {"data.sequence_length=19"}), of_one_layer(27, 50)},
    {"embedding", in("fp32", {"model.attention.default=full", "data.sequence_length=100"}),
     [](ModelConfig& model) {
       of_one_layer(4, 4)(model);
       model.num_attention_heads = 1;
     }},
    {"layernorm", in("fp32", {"model.attention.default=full", "data.sequence_length=32"}),
     of_one_layer(252, 300)},
    {"bias", in("bf16", {"model.attention.default=full", "data.sequence_length=8", "batch.sequences=1"}),
     of_one_layer(24, 4096)},
    {"fewer_sequences_than_planned",
     in("fp32", {"model.attention.adapter=none", "model.attention.proposal=k", "data.sequence_length=520",
                 "model.attention.window=9", "model.attention.chunk=9", "batch.sequences=5"}),
     of_one_layer(24, 48)},
};

void fill(const HostBatch& batch, std::int64_t vocab_size) {
  for (std::int64_t i = 0; i < batch.tokens.size(); ++i) {
    batch.tokens.as<std::int32_t>()[i] = static_cast<std::int32_t>(i * 7 % vocab_size);
    batch.targets.as<std::int32_t>()[i] = static_cast<std::int32_t>(i * 5 % vocab_size);
    batch.mask.as<std::uint8_t>()[i] = 1;
  }
}

class FirstStep : public testing::TestWithParam<Case> {};

// A phase's first step, and the bytes that it takes.
std::vector<std::size_t> taken_by_first_steps(const Config& config, const ModelConfig& model, Ops& ops) {
  const auto communicator = make_single_communicator();
  Trainer trainer(config, model, ops, *communicator);
  initialize_from_scratch(trainer.parameters(), model, ops, 1);
  std::vector<std::size_t> taken;
  for (const PhaseConfig& phase : config.phases) {
    trainer.begin_phase(phase);
    fill(trainer.batch(), model.vocab_size);
    const std::size_t before = memory_taken(ops);
    trainer.step_on_batch({});
    taken.push_back(memory_taken(ops) - before);
  }
  return taken;
}

// CUDA itself takes memory for kernels that it has not run yet: on a GPU a run like this one comes before.
TEST_P(FirstStep, TakesNoMemory) {
  const auto ops = make_device_ops();
  const TrainingRun run;
  const Config config = run.config(GetParam().overrides);
  ModelConfig model = resolve_model(config);
  GetParam().change(model);
  if (device_is_gpu()) taken_by_first_steps(config, model, *ops);
  EXPECT_THAT(taken_by_first_steps(config, model, *ops), testing::ElementsAre(0, 0));
}

INSTANTIATE_TEST_SUITE_P(Models, FirstStep, testing::ValuesIn(cases),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace flasheva
