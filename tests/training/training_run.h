// The committed two-phase run (tests/fixtures/training) in a temporary folder, trained through train().
#pragma once

#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "src/core/file.h"
#include "src/io/token_file.h"
#include "src/training/recipe.h"
#include "tests/support/fixtures.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {

using Overrides = std::vector<std::string>;

// One rank, which is told of each step.
class WatchedRank : public Communicator {
 public:
  // Before the update.
  virtual void step_ends() = 0;

  int rank() const override { return 0; }
  int size() const override { return 1; }
  int local_rank() const override { return 0; }
  int threads() const override { return 0; }
  std::string description() override { return "1 rank"; }
  void all_reduce_sum(std::span<double>) override {}
  void sum_on_gpu(DeviceSums&) override {}
  // Once a step: the gradients of this model fit into one bucket.
  void start_all_reduce_sum(Tensor, Tensor, DType) override { step_ends(); }
  void start_reduce_scatter_sum(Tensor, Tensor, DType) override {}
  void start_all_gather(Tensor) override {}
  void wait() override {}
  void set_timeout(double) override {}
  void set_patience(double, const std::string&) override {}
  void leave() override {}
};

// Lets `steps` optimizer steps begin in one call of train(); in the next one it stops the run, by a signal or
// as if the process had died.
class Interrupter final : public WatchedRank {
 public:
  enum class By { signal, crash };
  // All that is under way to the disk gets there.
  struct Crash : SharedError {
    Crash() : SharedError(ExitCode::other, "crash") {}
  };

  Interrupter(By by, int steps) : by_(by), steps_left_(steps) {}
  void step_ends() override {
    if (steps_left_-- != 0) return;
    if (by_ == By::crash) throw Crash{};
    std::raise(SIGTERM);
  }

 private:
  By by_;
  int steps_left_;
};

inline std::string bytes_of(const std::filesystem::path& file) { return read_text_file(file); }

// The stream of the fixture as a token file.
inline void write_fixture_tokens(const std::filesystem::path& path) {
  const SafetensorsReader file(fixture("training/tokens.safetensors"));
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.at("tokens").size()));
  load_tensor(view_of(tokens.data(), {static_cast<std::int64_t>(tokens.size())}), file.at("tokens"),
              "tokens");
  TokenFileWriter writer(path, {.vocab_size = 48, .tokenizer = "", .source = "", .eos_token_id = {}});
  writer.append(tokens);
  writer.finish();
}

class TrainingRun {
 public:
  explicit TrainingRun(std::unique_ptr<Ops> ops = make_cpu_ops())
      : own_folder_(std::in_place, memory_folder()), folder_(own_folder_->path()), ops_(std::move(ops)) {
    write_fixture_tokens(tokens());
  }
  // In a folder that has the tokens already, or is given them.
  explicit TrainingRun(std::filesystem::path folder) : folder_(std::move(folder)), ops_(make_cpu_ops()) {}

  std::filesystem::path output() const { return folder_ / "run"; }
  std::filesystem::path tokens() const { return folder_ / "tokens.h5"; }
  std::filesystem::path checkpoint(int step) const {
    return output() / "checkpoints" / fmt::format("step-{:09}", step);
  }

  Config config(Overrides overrides = {}) const {
    overrides.insert(overrides.begin(), {"run.output=" + output().string(), "data.train=" + tokens().string(),
                                         "model.from=" + fixture("training/model").string()});
    return load_config(fixture("training/run.yaml"), overrides);
  }

  TrainOutcome train(const Overrides& overrides = {}, bool fresh = false) {
    return flasheva::train(config(overrides), *ops_, *make_single_communicator(), fresh);
  }
  TrainOutcome train_with(Communicator& ranks, const Overrides& overrides, Ops* ops = nullptr) {
    return flasheva::train(config(overrides), ops == nullptr ? *ops_ : *ops, ranks, false);
  }

  // Trains until `steps` more steps are done, then stops by a signal.
  TrainOutcome train_until_signal(int steps, const Overrides& overrides) {
    Interrupter interrupter(Interrupter::By::signal, steps - 1);
    return flasheva::train(config(overrides), *ops_, interrupter, false);
  }

  // Trains until `steps` more steps are done, then loses everything that is not on disk.
  void train_until_crash(int steps, const Overrides& overrides) {
    Interrupter interrupter(Interrupter::By::crash, steps);
    EXPECT_THROW(flasheva::train(config(overrides), *ops_, interrupter, false), Interrupter::Crash);
  }

  // What train() says on standard error.
  std::string messages_of_training(const Overrides& overrides, bool fresh = false) {
    testing::internal::CaptureStderr();
    try {
      train(overrides, fresh);
    } catch (...) {
      testing::internal::GetCapturedStderr();
      throw;
    }
    return testing::internal::GetCapturedStderr();
  }

  // metrics.jsonl without the figures that two equal runs need not share.
  std::vector<nlohmann::ordered_json> metrics() const {
    std::vector<nlohmann::ordered_json> entries;
    std::ifstream file(output() / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) {
      entries.push_back(nlohmann::ordered_json::parse(line));
      for (const char* key : {"tokens_per_second", "peak_memory_bytes", "gpu_memory_bytes", "time"})
        entries.back().erase(key);
    }
    return entries;
  }

  // How many entries have a figure.
  std::int64_t entries_with(const std::string& key) const {
    std::int64_t entries = 0;
    std::ifstream file(output() / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) entries += nlohmann::json::parse(line).contains(key);
    return entries;
  }

  // A figure of every entry that has it.
  std::vector<double> column(const std::string& key) const {
    std::vector<double> values;
    for (const auto& entry : metrics())
      if (entry.contains(key)) values.push_back(entry[key]);
    return values;
  }

  std::string final_model() const { return bytes_of(output() / "model" / "model.safetensors"); }

 private:
  std::optional<TemporaryFolder> own_folder_;
  std::filesystem::path folder_;
  std::unique_ptr<Ops> ops_;
};

}  // namespace flasheva
