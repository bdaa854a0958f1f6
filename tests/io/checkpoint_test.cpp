// Checkpoints: what is written comes back, and nothing that is not what was written is ever believed.
// FLASHEVA_TRIALS sets how many bits are flipped and how many files are cut.
#include "src/io/checkpoint.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <set>
#include <utility>

#include "src/io/model_folder.h"
#include "tests/support/expect_error.h"
#include "tests/support/fixtures.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/trials.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;

// The smallest checkpoint with every kind of file: an EVA model's folder, moments, state, manifest.
class Checkpoints : public testing::Test {
 protected:
  Checkpoints() : config(read_model_config(fixture("models/eva-block"))), values(6) {
    std::iota(values.begin(), values.end(), 1.0f);
  }

  void write(std::int64_t step, std::int64_t keep = 10, bool interim = false) {
    const StoredTensor tensor{StoredType::F32, {2, 3}, std::as_bytes(std::span<const float>(values))};
    CheckpointWriter writer(folder.path(), step);
    writer.begin(1000);
    const CheckpointFile moments =
        writer.write_moments({{"first_moment.weight", tensor}, {"second_moment.weight", tensor}}, 0, 1);
    writer.write_model({{"weight", tensor}}, {{"step", step}, {"phase", 1}, {"interim", interim}}, config,
                       "");
    writer.finish({moments}, keep);
  }

  fs::path of_step(int step) const { return folder / fmt::format("step-{:09}", step); }

  std::set<std::string> names(const fs::path& in) const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(in)) names.insert(entry.path().filename().string());
    return names;
  }

  // A file of the checkpoint of step 2, and its content.
  std::pair<std::string, std::string> random_file(std::mt19937_64& random) const {
    const std::set<std::string> all = names(of_step(2));
    const auto name = std::next(all.begin(), static_cast<std::ptrdiff_t>(random() % all.size()));
    return {*name, read_text_file(of_step(2) / *name)};
  }

  // The step of the newest valid checkpoint, -1 for none; what was warned of is in `warnings`.
  int newest() {
    warnings.clear();
    const auto found =
        newest_valid_checkpoint(folder.path(), [&](const std::string& line) { warnings.push_back(line); });
    return found ? found->state.at("step").get<int>() : -1;
  }

  static void overwrite(const fs::path& file, const std::string& content) {
    FileWriter writer(file);
    writer.write(content);
  }

  TemporaryFolder folder{memory_folder()};
  ModelConfig config;
  std::vector<float> values;
  std::vector<std::string> warnings;
};

TEST_F(Checkpoints, WhatIsWrittenIsRead) {
  EXPECT_EQ(newest(), -1);
  write(7);
  EXPECT_EQ(newest(), 7);
  EXPECT_TRUE(warnings.empty());
  EXPECT_EQ(checkpoint_fault(of_step(7)), "");
  EXPECT_EQ(names(folder.path()), std::set<std::string>{"step-000000007"});
  EXPECT_EQ(
      names(of_step(7)),
      (std::set<std::string>{"config.json", "generation_config.json", "configuration_flasheva_gpt_neox.py",
                             "modeling_flasheva_gpt_neox.py", "model.safetensors", "optimizer.safetensors",
                             "state.json", "manifest.json"}));
  EXPECT_EQ(read_model_config(of_step(7)).attention[0].kind, config.attention[0].kind);
  const SafetensorsReader model(of_step(7)), optimizer(of_step(7) / "optimizer.safetensors");
  for (const StoredTensor& tensor : {model.at("weight"), optimizer.at("second_moment.weight")}) {
    EXPECT_EQ(tensor.shape, (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(std::memcmp(tensor.data.data(), values.data(), 24), 0);
  }
}

TEST_F(Checkpoints, TheNewestByNumberCounts) {
  for (const int step : {9, 1000000000, 10, 2}) write(step);  // each removes the later ones
  EXPECT_EQ(names(folder.path()), std::set<std::string>{"step-000000002"});
  for (const int step : {9, 10, 1000000000}) write(step);
  EXPECT_EQ(newest(), 1000000000);
}

TEST_F(Checkpoints, OneOfTheSameNumberIsReplaced) {
  write(3);
  values[0] = 9;
  write(3);
  const SafetensorsReader model(of_step(3));
  EXPECT_EQ(std::memcmp(model.at("weight").data.data(), values.data(), 24), 0);
  EXPECT_EQ(checkpoint_fault(of_step(3)), "");
}

TEST_F(Checkpoints, KeepsTheNewestFew) {
  for (int step = 1; step <= 5; ++step) write(step, 2);
  EXPECT_EQ(names(folder.path()), (std::set<std::string>{"step-000000004", "step-000000005"}));
}

TEST_F(Checkpoints, AnInterimOneLivesUntilTheNextAndDoesNotCount) {
  const auto steps = [&] { return names(folder.path()); };
  write(1, 2);
  write(2, 2);
  write(3, 2, /*interim=*/true);
  EXPECT_EQ(steps(), (std::set<std::string>{"step-000000001", "step-000000002", "step-000000003"}));
  write(4, 2, /*interim=*/true);
  EXPECT_EQ(steps(), (std::set<std::string>{"step-000000001", "step-000000002", "step-000000004"}));
  EXPECT_EQ(newest(), 4);
  write(5, 2);
  EXPECT_EQ(steps(), (std::set<std::string>{"step-000000002", "step-000000005"}));
}

TEST_F(Checkpoints, OneWhoseStateIsDamagedCountsAsAnyOther) {
  for (const char* state : {"", "[]", "{", "{\"interim\": 7}"}) {
    write(1);
    overwrite(of_step(1) / "state.json", state);
    write(2);
    EXPECT_EQ(names(folder.path()), (std::set<std::string>{"step-000000001", "step-000000002"})) << state;
  }
}

TEST_F(Checkpoints, OtherFoldersAreNeitherReadNorPruned) {
  for (const char* name : {"step-", "step-x", "step-1x", "best", "step-00000000000000000000007"})
    fs::create_directories(folder / name);
  overwrite(folder / "step-000000050", "a file");
  write(1, 1);
  write(2, 1);
  EXPECT_EQ(newest(), 2);
  EXPECT_TRUE(warnings.empty());
  EXPECT_EQ(names(folder.path()).size(), 7u);
}

// Each flips one bit of one file, then puts it back.
TEST_F(Checkpoints, AnyFlippedBitIsNoticed) {
  write(1);
  write(2);
  std::mt19937_64 random(11);
  for (int trial = 0; trial < trials(400); ++trial) {
    const auto [name, good] = random_file(random);
    const std::size_t byte = random() % good.size(), bit = random() % 8;
    std::string bad = good;
    bad[byte] = static_cast<char>(bad[byte] ^ (1 << bit));
    overwrite(of_step(2) / name, bad);
    ASSERT_EQ(newest(), 1) << name << " byte " << byte << " bit " << bit;
    ASSERT_EQ(warnings.size(), 1u);
    ASSERT_NE(warnings[0].find("step-000000002"), std::string::npos) << warnings[0];
    ASSERT_NE(warnings[0].find(name), std::string::npos) << warnings[0];
    ASSERT_EQ(warnings[0].find('\n'), std::string::npos) << warnings[0];
    overwrite(of_step(2) / name, good);
  }
  EXPECT_EQ(newest(), 2);
}

TEST_F(Checkpoints, AnyTruncationIsNoticed) {
  write(2);
  std::mt19937_64 random(12);
  const auto expect_noticed = [&](const std::string& name, const std::string& good, const std::string& bad) {
    overwrite(of_step(2) / name, bad);
    EXPECT_EQ(newest(), -1) << name << " of " << bad.size() << " bytes";
    overwrite(of_step(2) / name, good);
  };
  for (const std::string& name : names(of_step(2))) {
    const std::string good = read_text_file(of_step(2) / name);
    for (const std::string& bad : {std::string(), good.substr(0, good.size() - 1), good + "x"})
      expect_noticed(name, good, bad);
  }
  for (int trial = 0; trial < trials(50); ++trial) {
    const auto [name, good] = random_file(random);
    expect_noticed(name, good, good.substr(0, random() % good.size()));
  }
  EXPECT_EQ(newest(), 2);
}

TEST_F(Checkpoints, MissingAndForeignFilesAreNoticed) {
  write(2);
  for (const std::string& name : names(of_step(2))) {
    fs::rename(of_step(2) / name, folder / "elsewhere");
    EXPECT_EQ(newest(), -1) << name;
    fs::rename(folder / "elsewhere", of_step(2) / name);
  }
  overwrite(of_step(2) / "notes.txt", "not mine");
  EXPECT_EQ(newest(), -1);
  fs::remove(of_step(2) / "notes.txt");
  fs::create_directory(of_step(2) / "sub");
  EXPECT_EQ(newest(), -1);
  fs::remove(of_step(2) / "sub");
  EXPECT_EQ(newest(), 2);
}

TEST_F(Checkpoints, WhatAKilledProcessLeftIsIgnoredAndRemovedByTheNextWrite) {
  write(1);
  fs::copy(of_step(1), folder / "writing-step-000000002");
  EXPECT_EQ(newest(), 1);
  EXPECT_TRUE(warnings.empty());
  write(3);
  EXPECT_EQ(names(folder.path()), (std::set<std::string>{"step-000000001", "step-000000003"}));
}

TEST_F(Checkpoints, AFolderThatCannotBeMadeIsNamed) {
  overwrite(folder / "file", "");
  expect_error(ExitCode::disk, "file/checkpoints: cannot write: Not a directory",
               [&] { CheckpointWriter(folder / "file" / "checkpoints", 1).begin(0); });
}

}  // namespace
}  // namespace flasheva
