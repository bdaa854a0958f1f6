// A micro batch whose logits are taken in slices of tokens gives the losses and gradients of smaller ones
// whose logits are taken at once.
#include <gtest/gtest.h>

#include <memory>

#include "src/model/gpt_neox.h"
#include "src/model/initialize.h"
#include "tests/support/device_tensors.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

constexpr std::int64_t tokens_a_sequence = 32;

ModelConfig config_with(std::int64_t vocab_size) {
  ModelConfig config;
  config.vocab_size = vocab_size;
  config.hidden_size = config.intermediate_size = 8;
  config.num_attention_heads = config.num_hidden_layers = 1;
  config.attention.resize(1);
  return config;
}

struct SlicedModel {
  SlicedModel(std::int64_t vocab_size, std::int64_t sequences)
      : config(config_with(vocab_size)),
        parameters(config),
        network(config, parameters),
        extent{sequences, tokens_a_sequence} {
    parameters.select({"all"});
    MemoryPlan masters_plan, plan;
    parameters.plan_masters(masters_plan, DType::f32);
    masters = std::make_unique<Buffer>(masters_plan.bytes(), *ops);
    masters->bind(masters_plan);
    parameters.plan_weights(plan, DType::f32);
    parameters.plan_gradients(plan);
    network.plan(plan, ops->device(), extent, DType::f32, true);
    plan.add(batch, "batch", DType::i32, {extent.rows()});
    plan.add(scale, "batch", DType::f32, {1});
    for (const auto& category : plan.categories())
      if (category.name == "logits of a slice") logits_bytes = category.bytes;
    memory = std::make_unique<Buffer>(plan.bytes(), *ops);
    memory->bind(plan);
    initialize_from_scratch(parameters, config, *ops, 1);
    network.prepare(*ops);
    ops->zero(parameters.gradients());
  }

  // Its summed losses; gradients += .
  double run(Tensor tokens) {
    const Extent all{tokens.dim(0) / tokens_a_sequence, tokens_a_sequence};
    TestTensor one(DType::f32, {1});
    one.set(0, 1);
    ops->copy(scale, one);
    ops->copy(batch.rows(0, all.rows()), tokens);
    const Tensor used = batch.rows(0, all.rows());
    network.forward_backward({*ops, all, {}}, {all, used, used, {}}, scale);
    const TestTensor losses = copy_of(*ops, network.losses().rows(0, all.rows()));
    double nats = 0;
    for (std::int64_t i = 0; i < losses.size(); ++i) nats += losses.get(i);
    return nats;
  }

  std::unique_ptr<Ops> ops = make_device_ops();
  ModelConfig config;
  ParameterTable parameters;
  GptNeoX network;
  Extent extent;
  Tensor batch, scale;
  std::size_t logits_bytes = 0;
  std::unique_ptr<Buffer> masters, memory;
};

TEST(HeadSlices, GiveWhatLogitsAtOnceGive) {
  const std::int64_t vocab_size = make_device_ops()->device() == Device::cpu ? 1'000'000 : 4'000'000;
  constexpr std::int64_t sequences = 5;  // slices of 64, 64 and 32 tokens
  SlicedModel whole(vocab_size, sequences), parts(vocab_size, 1);
  EXPECT_EQ(whole.logits_bytes, 2 * parts.logits_bytes);
  std::mt19937_64 generator = generator_of_inputs(1);
  TestTensor tokens =
      TestTensor::random_tokens({whole.extent.rows()}, static_cast<std::int32_t>(vocab_size), generator);
  double nats = 0;
  for (std::int64_t i = 0; i < sequences; ++i)
    nats += parts.run(tokens.view().rows(i * tokens_a_sequence, tokens_a_sequence));
  EXPECT_NEAR(whole.run(tokens), nats, 1e-6 * nats);
  EXPECT_LE(relative_error(copy_of(*whole.ops, whole.parameters.gradients()),
                           copy_of(*parts.ops, parts.parameters.gradients())),
            1e-5);
}

}  // namespace
}  // namespace flasheva
