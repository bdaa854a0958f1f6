// The committed two-phase run against PyTorch in float64, and what must not change its losses.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "src/io/hdf5_handle.h"
#include "src/training/trainer.h"
#include "tests/support/expect_error.h"
#include "tests/training/training_run.h"

namespace flasheva {
namespace {

double largest_relative_difference(const std::vector<double>& values, const std::vector<double>& expected) {
  if (values.size() != expected.size()) return INFINITY;
  double largest = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double difference = std::abs(values[i] - expected[i]) / std::abs(expected[i]);
    largest = std::isfinite(difference) ? std::max(largest, difference) : INFINITY;
  }
  return largest;
}

std::vector<double> expected_column(const std::string& name) {
  const SafetensorsReader file(fixture("training/expected.safetensors"));
  const TestTensor tensor = fixture_tensor(file, name, DType::f64);
  std::vector<double> values;
  for (std::int64_t i = 0; i < tensor.size(); ++i) values.push_back(tensor.get(i));
  return values;
}

// The specification asks for 1e-4; float32 comes within 4e-8 here. 1e-6 leaves room for other orders of
// summation and none for an optimizer that is a little wrong.
TEST(Train, LossesOfTwoPhasesAreThoseOfPyTorchInFloat64) {
  TrainingRun run;
  ASSERT_EQ(run.train(), TrainOutcome::finished);
  EXPECT_LE(largest_relative_difference(run.column("loss"), expected_column("losses")), 1e-6);
  EXPECT_LE(largest_relative_difference(run.column("grad_norm"), expected_column("grad_norms")), 1e-5);
  EXPECT_LE(largest_relative_difference(run.column("lr"), expected_column("learning_rates")), 1e-14);
}

TEST(Train, LogsPhasesAndStepsFromOne) {
  TrainingRun run;
  run.train({"log.layers_every=4", "data.validation=" + run.tokens().string(), "evaluate.every=5"});
  int logged = 0, by_part = 0;
  std::vector<std::pair<std::string, int>> validated;
  for (const auto& entry : run.metrics()) {
    if (entry.contains("validation_loss")) {
      EXPECT_FALSE(entry.contains("loss"));
      validated.emplace_back(entry["phase"], entry["step"]);
      continue;
    }
    if (entry.contains("attention_error")) continue;
    EXPECT_EQ(entry["phase"], logged < 8 ? "attention_warmup" : "full_finetune");
    EXPECT_EQ(entry["step"], logged % 8 + 1);
    EXPECT_EQ(entry["run_step"], ++logged);
    if (!entry.contains("grad_norm_by_part")) continue;
    ++by_part;
    double squares = 0;
    for (const auto& [part, norm] : entry["grad_norm_by_part"].items())
      squares += norm.get<double>() * norm.get<double>();
    EXPECT_NEAR(std::sqrt(squares), entry["grad_norm"].get<double>(), 1e-9 * std::sqrt(squares));
  }
  EXPECT_EQ(logged, 16);
  EXPECT_EQ(by_part, 4);
  const std::vector<std::pair<std::string, int>> expected = {
      {"attention_warmup", 0}, {"attention_warmup", 5}, {"attention_warmup", 8}, {"full_finetune", 0},
      {"full_finetune", 2},    {"full_finetune", 7},    {"full_finetune", 8}};
  EXPECT_EQ(validated, expected);
}

// Leaves each sequence another number of targets.
bool some_targets(std::size_t i) { return i % 7 < i / 24 % 5; }

void add_loss_mask(const std::filesystem::path& tokens, bool counts(std::size_t) = some_targets) {
  const Hdf5Handle file(H5Fopen(tokens.c_str(), H5F_ACC_RDWR, H5P_DEFAULT));
  std::vector<std::uint8_t> mask(1000);
  for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = counts(i);
  const hsize_t size = mask.size();
  const Hdf5Handle space(H5Screate_simple(1, &size, nullptr));
  const Hdf5Handle set(
      H5Dcreate2(file, "/loss_mask", H5T_STD_U8LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  ASSERT_GE(H5Dwrite(set, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, mask.data()), 0);
}

void expect_same_losses_for_every_micro_batch(bool masked, const Overrides& overrides) {
  std::vector<double> reference, validation;
  for (const int micro : {4, 1, 2, 3}) {
    TrainingRun run;
    if (masked) add_loss_mask(run.tokens());
    Overrides all = overrides;
    all.push_back(fmt::format("batch.micro={}", micro));
    all.push_back("data.validation=" + run.tokens().string());
    all.push_back("evaluate.batches=100");
    ASSERT_EQ(run.train(all), TrainOutcome::finished);
    if (micro == 4) {
      reference = run.column("loss");
      validation = run.column("validation_loss");
      continue;
    }
    EXPECT_LE(largest_relative_difference(run.column("loss"), reference), 1e-6) << micro;
    EXPECT_LE(largest_relative_difference(run.column("validation_loss"), validation), 1e-6) << micro;
  }
}

TEST(Train, MicroBatchesDoNotChangeTheLosses) { expect_same_losses_for_every_micro_batch(false, {}); }

TEST(Train, MicroBatchesDoNotChangeTheLossesUnderAMaskWithNoiseAndShuffling) {
  expect_same_losses_for_every_micro_batch(true, {"model.attention.noise.enabled=true", "data.shuffle=true"});
}

TEST(Train, RebuiltActivationsEndInTheSameModel) {
  for (const Overrides& more :
       {Overrides{}, Overrides{"phases.0.precision=bf16", "phases.1.precision=bf16"}}) {
    TrainingRun keeping;
    const auto settings = [&](const TrainingRun& run, const std::string& recompute) {
      Overrides all = {"batch.recompute=" + recompute, "model.attention.noise.enabled=true",
                       "data.validation=" + run.tokens().string(), "evaluate.every=5"};
      all.insert(all.end(), more.begin(), more.end());
      return all;
    };
    ASSERT_EQ(keeping.train(settings(keeping, "none")), TrainOutcome::finished);
    for (const char* recompute : {"attention", "block"}) {
      TrainingRun rebuilding;
      ASSERT_EQ(rebuilding.train(settings(rebuilding, recompute)), TrainOutcome::finished);
      EXPECT_TRUE(rebuilding.final_model() == keeping.final_model()) << recompute;
      EXPECT_EQ(rebuilding.metrics(), keeping.metrics()) << recompute;
    }
  }
}

TEST(Train, TheLossMaskLeavesTargetsOut) {
  TrainingRun plain, masked;
  add_loss_mask(masked.tokens());
  plain.train();
  masked.train();
  EXPECT_GT(largest_relative_difference(masked.column("loss"), plain.column("loss")), 1e-2);
}

TEST(Train, AValidationWithoutTargetsIsRefused) {
  TrainingRun run;
  const std::filesystem::path validation = run.tokens().string() + "-validation.h5";
  std::filesystem::copy(run.tokens(), validation);
  add_loss_mask(validation, [](std::size_t i) { return i > 900; });
  const auto train = [&](const char* batches) {
    return run.train({"data.validation=" + validation.string(), batches});
  };
  expect_error(ExitCode::data, "validation.h5: the loss mask counts no target of the first 4 sequences",
               [&] { train("evaluate.batches=1"); });
  EXPECT_EQ(train("evaluate.batches=100"), TrainOutcome::finished);
}

// Bytes of each tensor of a checkpoint or model folder.
std::map<std::string, std::string> tensors_of(const std::filesystem::path& folder) {
  const SafetensorsReader file(folder);
  std::map<std::string, std::string> tensors;
  for (const auto& [name, tensor] : file.tensors())
    tensors[name] = {reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size()};
  return tensors;
}

void expect_frozen_tensors_unchanged(const Overrides& overrides) {
  TrainingRun run;
  run.train(overrides);
  const auto start = tensors_of(fixture("training/model")), warmed = tensors_of(run.checkpoint(8)),
             end = tensors_of(run.output() / "model");
  ASSERT_EQ(warmed.size(), start.size() + 2 * 5);  // two eva layers: two projections and a bias
  for (const auto& [name, bytes] : warmed) {
    const bool attention = name.find(".attention.") != std::string::npos;
    if (start.count(name)) {
      EXPECT_EQ(bytes == start.at(name), !attention) << name;
    }
    EXPECT_NE(bytes, end.at(name)) << name;
  }
  const SafetensorsReader moments(run.checkpoint(8) / "optimizer.safetensors");
  EXPECT_TRUE(moments.contains("first_moment.gpt_neox.layers.2.attention.eva.query_proj.weight"));
  EXPECT_FALSE(moments.contains("first_moment.embed_out.weight"));
}

TEST(Train, FrozenTensorsKeepEveryBit) { expect_frozen_tensors_unchanged({}); }

Overrides both_phases_in(const std::string& precision) {
  return {"phases.0.precision=" + precision, "phases.1.precision=" + precision};
}

TEST(Train, FrozenTensorsKeepEveryBitInPhasesOfLowPrecision) {
  for (const char* precision : {"bf16", "fp16"}) expect_frozen_tensors_unchanged(both_phases_in(precision));
}

// bfloat16 keeps 8 bits; the losses of the run stay near float64's all the same. float16 keeps 11: its losses
// must be nearer.
TEST(Train, LowPrecisionPhasesStayNearFloat64) {
  const auto difference_in = [](const std::string& precision) {
    TrainingRun run;
    run.train(both_phases_in(precision));
    return largest_relative_difference(run.column("loss"), expected_column("losses"));
  };
  const double bfloat16 = difference_in("bf16");
  EXPECT_LE(bfloat16, 0.03);
  EXPECT_LT(difference_in("fp16"), bfloat16);
}

TEST(Train, NoiseIsTheSameInEveryRunAndAnotherWithAnotherSeed) {
  const std::string noise = "model.attention.noise.enabled=true";
  TrainingRun first, second, other, off;
  first.train({noise});
  second.train({noise});
  other.train({noise, "run.seed=2"});
  off.train();
  EXPECT_EQ(first.metrics(), second.metrics());
  EXPECT_EQ(first.final_model(), second.final_model());
  EXPECT_NE(first.column("loss"), other.column("loss"));
  EXPECT_NE(first.column("loss"), off.column("loss"));
}

TEST(Train, RefusesAPhaseThatTrainsNothing) {
  TrainingRun run;
  try {
    run.train({"phases.1.train=[attention, no.such.*]"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("full_finetune: train: 'no.such.*' names no tensor"),
              std::string::npos)
        << error.what();
  }
  EXPECT_FALSE(std::filesystem::exists(run.output()));
}

TEST(Train, StopsBeforeANonFiniteLossReachesTheWeights) {
  TrainingRun run;
  try {
    run.train({"phases.0.optimizer.lr=1e30", "phases.0.optimizer.clip=0", "checkpoint.every=1",
               "guards.max_skips=0"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::numeric);
    EXPECT_NE(std::string(error.what()).find("phase attention_warmup, step 2: loss "), std::string::npos)
        << error.what();
  }
}

std::size_t bytes_of(const MemoryPlan& plan, const std::string& category) {
  for (const auto& [name, bytes] : plan.categories())
    if (name == category) return bytes;
  return 0;
}

// On the CPU with more threads, on a GPU with more sequences at once and more multiprocessors it is more.
TEST(Plans, HaveTheScratchMemoryOfOperations) {
  const TrainingRun run;
  const auto scratch = [&](const PlannedDevice& device, const std::string& micro) {
    const Config config = run.config({"batch.micro=" + micro, "data.sequence_length=2048"});
    return bytes_of(Trainer::plans(config, resolve_model(config), device, 0, 1)[1].memory, "scratch memory");
  };
  std::size_t of_threads[2];
  for (const int threads : {1, 2}) of_threads[threads - 1] = scratch(*make_cpu_ops(threads), "1");
  EXPECT_GT(of_threads[0], 0u);
  EXPECT_GT(of_threads[1], of_threads[0]);
  constexpr std::size_t of_products = 32 << 20;
  EXPECT_GT(scratch(Device::cuda, "1"), of_products);
  EXPECT_GT(scratch(Device::cuda, "4"), scratch(Device::cuda, "1"));
  PlannedDevice small = Device::cuda;
  small.multiprocessors = 2;
  EXPECT_LT(scratch(small, "1"), scratch(Device::cuda, "1"));
}

// Of 4 sequences the last of 3 ranks has two, and the first copies the weights for checkpoints.
TEST(Plans, TakeTheLargestMemoryOfAnyRankAndTheLargestBesideIt) {
  const TrainingRun run;
  const Config config = run.config({});
  const ModelConfig model = resolve_model(config);
  const Trainer::PhasePlan first = Trainer::plans(config, model, Device::cuda, 0, 3)[0],
                           last = Trainer::plans(config, model, Device::cuda, 2, 3)[0];
  ASSERT_GT(last.memory.bytes(), first.memory.bytes());
  ASSERT_GT(first.host.bytes(), last.host.bytes());
  const Trainer::PhasePlan largest = Trainer::largest_plans(config, model, Device::cuda, 3)[0];
  EXPECT_EQ(largest.memory.bytes(), last.memory.bytes());
  EXPECT_EQ(largest.host.bytes(), first.host.bytes());
}

}  // namespace
}  // namespace flasheva
