// One rank of a run computes something wrong at a random place: a value that is not finite changes nothing on
// any rank, a weight that differs ends the run and names the rank. FLASHEVA_TRIALS sets how often.
#include <gmock/gmock.h>

#include <random>

#include "src/model/parameters.h"
#include "tests/support/expect_error.h"
#include "tests/support/trials.h"
#include "tests/training/poisoned_ops.h"
#include "tests/training/ranks.h"

namespace flasheva {

Communicator* ranks = nullptr;

namespace {

using testing::HasSubstr;

constexpr int layers = 3, steps = 8, sequences = 4, weights_a_layer = 4;

constexpr int usual = 6;

// The same on every rank.
class Choices {
 public:
  int below(int count) { return std::uniform_int_distribution(0, count - 1)(random_); }
  const char* among(const std::vector<const char*>& texts) {
    return texts[static_cast<std::size_t>(below(static_cast<int>(texts.size())))];
  }

 private:
  std::mt19937 random_{static_cast<unsigned>(ranks->size())};
};

// All of one phase is trained; of each step a checkpoint is kept.
Overrides settings(const char* sharing, int micro) {
  return {std::string("distributed=") + sharing,
          fmt::format("batch.micro={}", micro),
          fmt::format("phases.0.steps={}", steps),
          "phases.0.train=[all]",
          "phases.1.steps=1",
          "checkpoint.every=1",
          "checkpoint.keep=100"};
}

// Micro batches that a rank has in a step.
int passes_of(int rank, int micro) {
  const auto first = [&](int r) {
    return static_cast<int>(first_sequence_of_rank(sequences, r, ranks->size()));
  };
  return (first(rank + 1) - first(rank) + micro - 1) / micro;
}

// The tensor whose gradient is the `call`-th of a linear layer that a backward pass computes.
std::string name_of_weight(int call) {
  static const char* names[] = {"mlp.dense_4h_to_h", "mlp.dense_h_to_4h", "attention.dense",
                                "attention.query_key_value"};
  if (call == 0) return "embed_out.weight";
  const int layer = layers - 1 - (call - 1) / weights_a_layer;
  return fmt::format("gpt_neox.layers.{}.{}.weight", layer, names[(call - 1) % weights_a_layer]);
}

// Every file of a checkpoint that holds tensors.
std::map<std::string, std::string> tensors_after(const TrainingRun& run, int step) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(run.checkpoint(step)))
    if (entry.path().extension() == ".safetensors")
      files[entry.path().filename().string()] = bytes_of(entry.path());
  return files;
}

TEST(PoisonedRanks, AValueThatIsNotFiniteChangesNothingAnywhereAndIsNamed) {
  Choices choices;
  for (int trial = 0; trial < trials(usual); ++trial) {
    const char* sharing =
        choices.among({"{}", "{shard_optimizer: true}", "{shard_gradients: true}", "{reduce_dtype: bf16}",
                       "{shard_gradients: true, reduce_dtype: bf16}"});
    const int micro = 1 + choices.below(2), victim = choices.below(ranks->size());
    const int step = 1 + choices.below(steps), pass = choices.below(passes_of(victim, micro));
    const int passes_before = (step - 1) * passes_of(victim, micro) + pass;
    const bool forward = choices.below(2) == 0;
    const int weights = 1 + layers * weights_a_layer, place = choices.below(forward ? layers : weights);
    const std::string expected =
        forward ? fmt::format("not finite: layer {}, forward", place)
                : fmt::format("not finite: gradient of {}, backward", name_of_weight(place));
    SCOPED_TRACE(fmt::format("{}, micro {}, rank {}, step {}, pass {}: {}", sharing, micro, victim, step,
                             pass, expected));

    const bool poisoned_here = ranks->rank() == victim;
    const auto ops = make_cpu_ops();
    PoisonedOps poisoned(*ops, poisoned_here && forward ? passes_before * layers + place : never,
                         poisoned_here && !forward ? passes_before * weights + place : never);
    SharedRun run(*ranks);
    Overrides all = settings(sharing, micro);
    all.push_back("guards.weights_every=1");
    ASSERT_EQ(run.train_with(*ranks, all, &poisoned), TrainOutcome::finished);
    if (ranks->rank() != 0) continue;

    std::vector<nlohmann::ordered_json> warnings;
    for (const auto& entry : run.metrics())
      if (entry.contains("warning")) warnings.push_back(entry);
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_EQ(warnings[0]["step"], step);
    EXPECT_EQ(warnings[0]["updated"], false);
    EXPECT_THAT(warnings[0]["warning"].get<std::string>(), HasSubstr(expected));
    if (step > 1) {
      EXPECT_TRUE(tensors_after(run, step) == tensors_after(run, step - 1));
    }
    if (step < steps) {
      EXPECT_FALSE(tensors_after(run, step + 1) == tensors_after(run, step));
    }
  }
}

// Computes as the CPU does, but flips one bit of a tensor that one step has updated.
class FlippingOps final : public TimedOps {
 public:
  FlippingOps(Ops& ops, int steps_before, int tensor, int bit)
      : TimedOps(ops), steps_before_(steps_before), tensor_(tensor), bit_(bit) {}
  void adamw(std::span<const AdamWParameter> parameters, const AdamWConfig& config) override {
    TimedOps::adamw(parameters, config);
    if (steps_before_-- != 0) return;
    float* weight = parameters[static_cast<std::size_t>(tensor_)].weight.as<float>();
    *reinterpret_cast<std::uint32_t*>(weight) ^= 1u << bit_;
  }

 private:
  int steps_before_, tensor_, bit_;
};

TEST(PoisonedRanks, AFlippedBitOfAWeightEndsTheRunAndNamesTheRank) {
  if (ranks->size() == 1) GTEST_SKIP() << "nothing to compare with";
  const ModelConfig model = resolve_model(TrainingRun().config());
  const int tensors = static_cast<int>(ParameterTable(model).all().size());
  Choices choices;
  for (int trial = 0; trial < trials(usual); ++trial) {
    const int victim = choices.below(ranks->size()), step = 1 + choices.below(steps - 2),
              every = 1 + choices.below(3);
    const int tensor = choices.below(tensors),
              bit = 8 + choices.below(16);  // not so low that rounding heals it
    SCOPED_TRACE(fmt::format("rank {}, step {}, tensor {}, bit {}, compared every {} steps", victim, step,
                             tensor, bit, every));
    const auto ops = make_cpu_ops();
    FlippingOps flipping(*ops, ranks->rank() == victim ? step - 1 : never, tensor, bit);
    SharedRun run(*ranks);
    Overrides all = settings("{}", 2);
    all.push_back(fmt::format("guards.weights_every={}", every));
    const int named = ranks->size() == 2 ? 1 : victim;  // of two that differ nobody knows which is right
    const int noticed = (step + every - 1) / every * every;
    const std::string expected =
        fmt::format("phase attention_warmup, step {}: the weights of rank {} differ", noticed, named);
    expect_error(ExitCode::numeric, ranks->rank() == 0 ? expected : "",
                 [&] { run.train_with(*ranks, all, &flipping); });
  }
}

}  // namespace
}  // namespace flasheva

int main(int argc, char** argv) { return flasheva::run_tests_with_ranks(argc, argv); }
