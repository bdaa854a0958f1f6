#include "src/inference/inference_model.h"

#include <gtest/gtest.h>

#include "kernels/timed_ops.h"
#include "tests/support/expect_error.h"
#include "tests/support/fixtures.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

// Logits of a longer batch's first tokens, of its last tokens alone, and of shorter batches agree: what is
// planned for the largest batch serves every smaller one.
TEST(InferenceModel, ServesEveryBatchUpToTheLargest) {
  const auto ops = make_device_ops();
  const SafetensorsReader expected(fixture("models/eva-block/expected.safetensors"));
  const std::int64_t T = expected.at("tokens").shape[1];
  TestTensor tokens = fixture_tensor(expected, "tokens", DType::i32);
  const TestTensor all = fixture_tensor(expected, "logits", DType::f64);
  InferenceModel model(fixture("models/eva-block"), *ops, Precision::fp32, {2, T}, "");
  const std::int64_t V = model.config().vocab_size;
  for (std::int64_t length = 1; length <= T; ++length) {
    for (const std::int64_t rows : {std::int64_t{1}, length}) {
      TestTensor out(DType::f32, {rows, V}), reference(DType::f64, {rows, V});
      model.logits(out, tokens.view().rows(0, length), {1, length});
      for (std::int64_t i = 0; i < rows * V; ++i) reference.set(i, all.get((length - rows) * V + i));
      EXPECT_LE(relative_error(out, reference), 1e-5) << length << " tokens, last " << rows;
    }
  }
}

TEST(InferenceModel, LowPrecisionIsNearFloat32ButNotEqual) {
  const auto ops = make_device_ops();
  const SafetensorsReader expected(fixture("models/eva-block/expected.safetensors"));
  const std::int64_t T = expected.at("tokens").shape[1];
  TestTensor tokens = fixture_tensor(expected, "tokens", DType::i32);
  InferenceModel wide(fixture("models/eva-block"), *ops, Precision::fp32, {1, T}, "");
  EXPECT_EQ(wide.compute_type(), DType::f32);
  const std::int64_t V = wide.config().vocab_size;
  TestTensor a(DType::f32, {T, V});
  wide.logits(a, tokens.view().rows(0, T), {1, T});
  for (const auto& [precision, dtype, bound] :
       {std::tuple{Precision::bf16, DType::bf16, 0.05}, {Precision::fp16, DType::f16, 0.05 / 8}}) {
    InferenceModel narrow(fixture("models/eva-block"), *ops, precision, {1, T}, "");
    EXPECT_EQ(narrow.compute_type(), dtype);
    TestTensor b(dtype, {T, V});
    narrow.logits(b, tokens.view().rows(0, T), {1, T});
    EXPECT_LE(relative_error(b, a), bound) << name_of(dtype);
    EXPECT_GE(relative_error(b, a), 1e-4) << name_of(dtype);
  }
}

TEST(InferenceModel, GivesLossesWithoutTakingMemory) {
  if (device_is_gpu()) GTEST_SKIP() << "CUDA itself takes memory for kernels";
  for (const Precision precision : {Precision::fp32, Precision::bf16, Precision::fp16}) {
    const auto ops = make_device_ops();
    constexpr std::int64_t T = 75;
    InferenceModel model(fixture("models/eva-block"), *ops, precision, {2, T}, "");
    TestTensor tokens = TestTensor::zeros(DType::i32, {2 * T});
    AttentionErrors errors(model.config());
    const std::size_t taken = memory_taken(*ops);
    for (const std::int64_t sequences : {2, 1}) {
      const Tensor some = tokens.view().rows(0, sequences * T);
      model.evaluate({{sequences, T}, some, some, {}}, &errors);
    }
    EXPECT_EQ(memory_taken(*ops), taken) << name_of(model.compute_type());
  }
}

// Counts what is asked for.
class CountingOps final : public TimedOps {
 public:
  using TimedOps::TimedOps;
  DeviceMemory allocate(std::size_t bytes) override {
    asked_for += bytes;
    return TimedOps::allocate(bytes);
  }
  std::size_t asked_for = 0;
};

// A card that holds the weights in bfloat16 can load them, though it would not hold them in float32.
TEST(LoadedModel, NeedsLittleMoreMemoryThanItsWeights) {
  const auto ops = make_device_ops();
  for (const Precision precision : {Precision::fp32, Precision::bf16, Precision::fp16}) {
    CountingOps from_folder(*ops), from_scratch(*ops);
    const LoadedModel model(fixture("models/eva-block"), from_folder, precision);
    const LoadedModel random(model.config(), from_scratch, precision, 1);
    const ParameterTable parameters(model.config());
    const std::size_t largest = static_cast<std::size_t>(parameters.largest()) * sizeof(float);
    const std::size_t padding = (parameters.all().size() + 1) * MemoryPlan::alignment_bytes;
    for (const CountingOps* counting : {&from_folder, &from_scratch}) {
      EXPECT_GE(counting->asked_for, model.weight_bytes());
      EXPECT_LE(counting->asked_for, model.weight_bytes() + largest + padding) << to_string(precision);
    }
  }
}

// Memory for the weights, and none for the rest.
class FullAfterWeights final : public TimedOps {
 public:
  using TimedOps::TimedOps;
  DeviceMemory allocate(std::size_t bytes) override {
    if (taken_) throw OutOfMemory("a plan asked for too much");
    taken_ = true;
    return TimedOps::allocate(bytes);
  }

 private:
  bool taken_ = false;
};

TEST(InferenceModel, GivesTheAdviceOfItsCaller) {
  const auto ops = make_device_ops();
  FullAfterWeights full(*ops);
  expect_error(ExitCode::other, "; write shorter sentences", [&] {
    InferenceModel(fixture("models/eva-block"), full, Precision::fp32, {1, 8}, "write shorter sentences");
  });
}

TEST(InferenceModel, NamesAMissingFolder) {
  const auto ops = make_device_ops();
  expect_error(ExitCode::data, "no-such-model: no such folder", [&] {
    InferenceModel("no-such-model", *ops, Precision::fp32, {1, 8}, "");
  });
}

}  // namespace
}  // namespace flasheva
