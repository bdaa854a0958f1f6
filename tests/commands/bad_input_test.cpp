// Bad command lines, configs and outputs.
#include "tests/commands/bad_input.h"

#include <gtest/gtest.h>

namespace flasheva {
namespace {

namespace fs = std::filesystem;

// ---- command line

TEST_F(BadInput, CommandLine) {
  const ExitCode usage = ExitCode::usage;
  expect_failure({}, usage, "subcommand is required");
  expect_failure({"trian", "x.yaml"}, usage, "no command 'trian'; there are train, evaluate");
  expect_failure({"data", "prepair"}, usage,
                 "no command 'prepair'; there are prepare, import-megatron, inspect");
  expect_failure({"data"}, usage, "subcommand is required");
  expect_failure({"train"}, usage, "CONFIG is required");
  expect_failure({"train", space->at("tune.yaml"), "--frsh"}, usage, "--frsh");
  expect_failure({"train", space->at("tune.yaml"), "--threads", "-1"}, usage, "--threads");
  expect_failure({"train", space->at("tune.yaml"), "--device", "tpu"}, usage, "--device");
  expect_failure({"train", space->at("tune.yaml"), "--device", "cuda"}, usage, "use --device cpu");
  expect_failure({"evaluate", model()}, usage, "--data or --multiple-choice is required");
  expect_failure({"evaluate", model(), "--multiple-choice", "x", "--attention-error"}, usage,
                 "--multiple-choice excludes --attention-error");
  expect_failure({"evaluate", model(), "--data", "x", "--sequence-length", "0"}, usage, "--sequence-length");
  expect_failure({"generate", model(), "--prompt", ""}, usage, "--prompt is empty");
  expect_failure({"generate", model(), "--prompt", "a", "--temperature", "0"}, usage, "--temperature");
  expect_failure({"generate", model(), "--prompt", "a", "--top-p", "1.5"}, usage, "--top-p");
  expect_failure({"convert", model()}, usage, "DST is required");
  expect_failure({"convert", model(), space->at("c"), "--dtype", "int8"}, usage, "--dtype");
  expect_failure({"convert", model(), space->at("c"), "--attention", "evaa"}, usage, "eva");
  expect_failure({"convert", model(), space->at("c"), "--window", "10", "--chunk", "4"}, usage, "window");
  expect_failure({"convert", model(), space->at("c"), "--layers", "full"}, usage, "0=full");
  expect_failure({"convert", model(), space->at("c"), "--layers", "7=full"}, usage, "7");
  expect_failure({"data", "prepare", "--input", "x.txt"}, usage, "--output is required");
  expect_failure({"bench", "step", space->at("scratch.yaml"), "--phase", "no"}, usage,
                 "no phase of that name");
  expect_failure({"bench", "attention", "--window", "10", "--chunk", "4"}, usage, "--window 10");
  for (const char* option : {"--batch", "--heads", "--head-dim", "--tokens", "--window", "--chunk"})
    expect_failure({"bench", "attention", option, "9223372036854775807"}, usage, option);
  expect_failure({"bench", "decode", space->at("scratch.yaml"), "--context", "9223372036854775807"}, usage,
                 "--context");
  EXPECT_FALSE(fs::exists(space->folder / "c"));
}

TEST_F(BadInput, NumbersOfFlags) {
  const auto expect_refused_flag = [](const char* flag, const char* value, const std::string& expected) {
    const std::string line =
        expect_failure({"generate", model(), "--prompt", "a", flag, value}, ExitCode::usage,
                       fmt::format("{}: expected {}, found '{}'", flag, expected, value));
    EXPECT_NE(line.find("; see flasheva generate --help"), std::string::npos) << line;
  };
  for (const char* value : {"nan", "inf", "0", "-1", "1e999", "1e-999", "hot"}) {
    expect_refused_flag("--temperature", value, "a number above 0");
    expect_refused_flag("--repetition-penalty", value, "a number above 0");
  }
  expect_refused_flag("--top-p", "nan", "a number above 0 and at most 1");
  for (const char* value : {"-1", "0x10", "010", "1e3", "1.5", "9223372036854775808"})
    for (const char* flag : {"--top-k", "--seed"}) expect_refused_flag(flag, value, "an integer from 0 on");
  expect_refused_flag("--max-length", "1", "an integer from 2 to 2147483647");
  expect_refused_flag("--threads", "100000", "an integer from 0 to 4096");
  expect_failure({"data", "prepare", "--input", "x", "--output", "x.h5", "--validation", "nan"},
                 ExitCode::usage,
                 "--validation: expected a number at least 0 and below 1, found 'nan'; see flasheva data "
                 "prepare --help");
}

TEST_F(BadInput, WhatIsReadIsNotOverwritten) {
  write_text(space->folder / "prompts.jsonl", "{\"prompt\": \"a\"}\n");
  const std::string prompts = space->at("prompts.jsonl");
  expect_failure({"generate", model(), "--input", prompts, "--output", prompts}, ExitCode::usage,
                 "--output " + prompts + ": is the file that is read");
  const std::string question = "{\"context\": \"a\", \"continuation\": \"b\"}\n";
  write_text(space->folder / "questions.jsonl", question);
  const std::string questions = space->at("questions.jsonl");
  for (const char* flag : {"--json", "--details"})
    expect_failure({"evaluate", model(), "--multiple-choice", questions, flag, questions}, ExitCode::usage,
                   flag + (" " + questions) + ": is the file that is read");
  EXPECT_EQ(read_text_file(questions), question);
}

TEST_F(BadInput, Overrides) {
  const std::string config = space->at("tune.yaml");
  for (const auto& [override, part] :
       std::map<std::string, std::string>{{"phases.0.stps=3", "phases.0.stps"},
                                          {"phases.7.steps=3", "phases.7"},
                                          {"phases.0.steps", "phases.0.steps"},
                                          {"phases.0.steps=many", "phases.0.steps"},
                                          {"phases.0.steps=[1", "phases.0.steps"},
                                          {"batch.micro=0", "batch.micro"}})
    expect_failure({"train", config, override}, ExitCode::usage, part);
}

// ---- config: FILE:LINE:COLUMN, the key, the nearest valid name

TEST_F(BadInput, UnknownMisspeltAndDuplicateKeys) {
  expect_refused(yaml_with("sequence_length", "sequence_lenght"), "bad.yaml:5:");
  expect_refused(yaml_with("sequence_length", "sequence_lenght"), "sequence_length");
  expect_refused(yaml_with("checkpoint:", "checkpoints:"), "checkpoint");
  expect_refused(yaml_with("seed: 4", "seed: 4, colour: red"), "colour");
  expect_refused(yaml_with("seed: 4", "seed: 4, seed: 5"), "bad.yaml:1:");
  expect_refused(yaml_with("log:", "batch: {sequences: 4}\nlog:"), "batch");
}

TEST_F(BadInput, WrongTypesAndImpossibleValues) {
  expect_refused(yaml_with("sequences: 4", "sequences: four"), "batch.sequences");
  expect_refused(yaml_with("sequences: 4", "sequences: 4.5"), "batch.sequences");
  expect_refused(yaml_with("sequences: 4", "sequences: [4]"), "batch.sequences");
  expect_refused(yaml_with("micro: 2", "micro: -2"), "batch.micro");
  expect_refused(yaml_with("lr: 3.0e-3", "lr: .nan"), "phases.0.optimizer.lr");
  expect_refused(yaml_with("window: 8", "window: 10"), "window");
  expect_refused(yaml_with("default: eva", "default: evaa"), "eva");
  expect_refused(yaml_with("{1: full}", "{2: full}"), "model.attention.layers");
  expect_refused(yaml_with("precision: bf16", "precision: fp8"), "precision");
  expect_refused(yaml_with("keep: 2", "keep: 0"), "checkpoint.keep");
  expect_refused(yaml_with("train: [all]", "train: [al]"), "'al' names no tensor");
  expect_refused(yaml_with("sequences: 4", "sequences: 99999999999999999999"), "batch.sequences");
  std::string yaml = space->scratch_yaml();
  write_text(space->folder / "bad.yaml", yaml.replace(yaml.find("heads: 2"), 8, "heads: 3"));
  expect_refused(space->at("bad.yaml"), "num_attention_heads");
}

TEST_F(BadInput, BrokenYaml) {
  expect_refused(yaml_with("]", ""), "bad.yaml:");
  write_text(space->folder / "bad.yaml", "");
  expect_refused(space->at("bad.yaml"), "bad.yaml");
  write_text(space->folder / "bad.yaml", std::string("run: \0\x01\xff", 8));
  expect_refused(space->at("bad.yaml"), "bad.yaml");
  expect_refused(space->at("no.yaml"), "no.yaml: cannot read: No such file or directory");
  expect_refused(space->folder.path().string(), "Is a directory");
}

// ---- more than a machine has

TEST_F(BadInput, SizesThatNoMachineHas) {
  const std::string many = "2147483647";
  expect_failure({"bench", "attention", "--batch", many, "--tokens", many}, ExitCode::other,
                 "more bytes asked for than 64 bits can count; lower the sizes that it is given");
  expect_failure({"plan", space->at("scratch.yaml"), "batch.sequences=" + many, "batch.micro=" + many,
                  "data.sequence_length=1000000", "model.architecture.hidden_size=1048576"},
                 ExitCode::other, "than 64 bits can count; lower batch.micro or data.sequence_length");
}

TEST_F(BadInput, MoreThreadsThanTheMachineGives) {
  const Arguments with_little_memory = {"/bin/sh", "-c", "ulimit -v 2000000; exec \"$0\" \"$@\""};
  const Result result = Program({"data", "prepare", "--input", space->at("text.txt"), "--output",
                                 space->at("o.h5"), "--threads", "4096"},
                                {}, with_little_memory)
                            .wait();
  EXPECT_EQ(result.code, static_cast<int>(ExitCode::other)) << result.err;
  EXPECT_THAT(result.err,
              testing::MatchesRegex("flasheva: [0-9]+ of 4096 threads started: .*; ask for fewer\n"));
}

// ---- output that cannot be written: a path below a regular file, for root may write anywhere

TEST_F(BadInput, OutputThatCannotBeWritten) {
  const std::string below = space->at("text.txt/below");
  const std::string part = "Not a directory";
  std::vector<std::int32_t> tokens = {1, 2};
  space->logits(model(), tokens);  // leaves tokens.safetensors
  expect_failure({"train", space->at("scratch.yaml"), "run.output=" + below}, ExitCode::disk, part);
  expect_failure({"convert", model(), below}, ExitCode::disk, part);
  expect_failure({"logits", model(), "--tokens", space->at("tokens.safetensors"), "--output", below},
                 ExitCode::disk, part);
  expect_failure({"data", "prepare", "--input", space->at("text.txt"), "--output", below + ".h5"},
                 ExitCode::disk, part);
  expect_failure({"evaluate", model(), "--data", space->at("validation.h5"), "--json", below}, ExitCode::disk,
                 part,
                 /*after_log=*/true);
}

TEST_F(BadInput, StandardOutputThatIsFull) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full";
  const Arguments into_full = {"/bin/sh", "-c", "exec \"$0\" \"$@\" > /dev/full"};
  for (const Arguments& command :
       {Arguments{"info"}, Arguments{"data", "inspect", space->at("train.h5")},
        Arguments{"generate", model(), "--prompt", "a", "--max-new-tokens", "3"},
        Arguments{"generate", model(), "--prompt", some_text(10000), "--max-length", "10003"}}) {
    const Result result = Program(command, {}, into_full).wait();
    EXPECT_EQ(result.code, static_cast<int>(ExitCode::disk)) << command[0] << result.err;
    EXPECT_THAT(result.err, testing::HasSubstr("flasheva: standard output: cannot write")) << command[0];
  }
}

TEST_F(BadInput, ConvertReplacesNoForeignFolder) {
  fs::create_directories(space->folder / "notes");
  write_text(space->folder / "notes/mine.txt", "mine");
  expect_failure({"convert", model(), space->at("notes")}, ExitCode::usage, "is not a model folder");
  EXPECT_EQ(read_text_file(space->folder / "notes/mine.txt"), "mine");
}

TEST_F(BadInput, NamesThatAreTooLong) {
  const std::string name(300, 'x');
  expect_failure({"generate", name, "--prompt", "a"}, ExitCode::data, "File name too long");
  expect_failure({"data", "prepare", "--input", space->at("text.txt"), "--output", space->at("o.h5"),
                  "--tokenizer", name},
                 ExitCode::data, "xxx: File name too long");
}

// A download may be the only one, and a checkpoint is what a run goes on from.
TEST_F(BadInput, ConvertReplacesExportsAlone) {
  const fs::path download = broken_model();
  fs::remove(download / "training.json");
  const std::string checkpoint = space->at("pretrained/checkpoints/step-000000001");
  for (const std::string& folder : {download.string(), checkpoint}) {
    expect_failure({"convert", model(), folder}, ExitCode::usage,
                   folder + ": exists and is not a model folder");
    expect_failure({"convert", folder, folder}, ExitCode::usage,
                   folder + ": exists and is not a model folder");
  }
  EXPECT_TRUE(fs::exists(checkpoint + "/optimizer.safetensors"));
  expect_done({"convert", model(), space->at("twice")});
  expect_done({"convert", model(), space->at("twice")});
}

// A name that holds a line break must not break the line.
TEST_F(BadInput, MessagesStayOnOneLine) {
  expect_failure({"train", "no\nsuch.yaml"}, ExitCode::usage, "cannot read");
  expect_failure({"evaluate", "no\nmodel", "--data", space->at("train.h5")}, ExitCode::data,
                 "no such folder");
  expect_failure({"train", space->at("tune.yaml"), "run.na\nme=x"}, ExitCode::usage, "run.na");
  expect_failure({"tra\nin"}, ExitCode::usage, "tra");
}

}  // namespace
}  // namespace flasheva
