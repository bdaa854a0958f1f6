// Bad input ends every command with one line that says what and where, and with the exit code of its kind.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "src/io/token_file.h"
#include "tests/commands/workspace.h"

namespace flasheva {

class BadInput : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    space = std::make_unique<Workspace>();
    expect_done({"train", space->at("scratch.yaml"), "phases.0.steps=1", "phases.0.schedule.warmup=0"});
  }
  static void TearDownTestSuite() { space.reset(); }

  static std::string model() { return space->at("pretrained/model"); }

  // A copy of the model folder, free to be broken.
  static std::filesystem::path broken_model() {
    const std::filesystem::path folder = space->folder / "broken";
    std::filesystem::remove_all(folder);
    std::filesystem::copy(model(), folder);
    return folder;
  }

  static std::string yaml_with(const std::string& from, const std::string& to) {
    std::string yaml = space->tune_yaml();
    const std::size_t at = yaml.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    write_text(space->folder / "bad.yaml", yaml.replace(at, from.size(), to));
    return space->at("bad.yaml");
  }

  // `train` and `plan` refuse the config, before they leave anything behind.
  static void expect_refused(const std::string& config, const std::string& part,
                             ExitCode code = ExitCode::usage) {
    for (const char* command : {"train", "plan"}) expect_failure({command, config}, code, part);
    EXPECT_FALSE(std::filesystem::exists(space->folder / "tuned"));
  }

  static void write_tokens(const std::string& name, std::int64_t vocab_size, std::int32_t token,
                           int count = 200, const std::string& tokenizer = "") {
    TokenFileWriter writer(space->folder / name, {vocab_size, tokenizer, "", {}});
    writer.append(std::vector<std::int32_t>(static_cast<std::size_t>(count), token));
    writer.finish();
  }

  inline static std::unique_ptr<Workspace> space;
};

}  // namespace flasheva
