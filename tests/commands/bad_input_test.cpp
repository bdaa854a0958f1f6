// Bad input ends every command with one line that says what and where, and with the exit code of its kind.
// What can be wrong inside a file is tested beside the code that reads it.
#include <gtest/gtest.h>

#include "src/io/token_file.h"
#include "tests/commands/workspace.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;

class BadInput : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    space = std::make_unique<Workspace>();
    expect_done({"train", space->at("scratch.yaml"), "phases.0.steps=1", "phases.0.schedule.warmup=0"});
  }
  static void TearDownTestSuite() { space.reset(); }

  static std::string model() { return space->at("pretrained/model"); }

  // A copy of the model folder, free to be broken.
  static fs::path broken_model() {
    const fs::path folder = space->folder / "broken";
    fs::remove_all(folder);
    fs::copy(model(), folder);
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
    EXPECT_FALSE(fs::exists(space->folder / "tuned"));
  }

  static void write_tokens(const std::string& name, std::int64_t vocab_size, std::int32_t token,
                           int count = 200, const std::string& tokenizer = "") {
    TokenFileWriter writer(space->folder / name, {vocab_size, tokenizer, "", {}});
    writer.append(std::vector<std::int32_t>(static_cast<std::size_t>(count), token));
    writer.finish();
  }

  static std::unique_ptr<Workspace> space;
};

std::unique_ptr<Workspace> BadInput::space;

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

// ---- token files

TEST_F(BadInput, MissingTruncatedAndForeignTokenFiles) {
  const std::string good = read_text_file(space->folder / "train.h5");
  const auto expect_all = [&](const std::string& name, const std::string& part) {
    const std::string path = space->at(name);
    expect_failure({"train", space->at("tune.yaml"), "data.train=" + path}, ExitCode::data, part);
    expect_failure({"train", space->at("tune.yaml"), "data.validation=" + path}, ExitCode::data, part);
    expect_failure({"evaluate", model(), "--data", path}, ExitCode::data, part);
    expect_failure({"data", "inspect", path}, ExitCode::data, part);
    EXPECT_FALSE(fs::exists(space->folder / "tuned"));
  };
  expect_all("no.h5", "no.h5: cannot read: No such file or directory");
  write_text(space->folder / "bad.h5", good.substr(0, good.size() / 2));
  expect_all("bad.h5", "bad.h5: not a readable HDF5 file");
  write_text(space->folder / "bad.h5", "");
  expect_all("bad.h5", "bad.h5: not a readable HDF5 file");
  expect_all("text.txt", "text.txt: not a readable HDF5 file");
  expect_all("pretrained", "a folder, not an HDF5 token file");
}

TEST_F(BadInput, TokensBeyondTheVocabulary) {
  write_tokens("large.h5", 1000, 3);  // no token is too large, but the file's vocabulary is
  for (const Arguments& command :
       {Arguments{"train", space->at("tune.yaml"), "data.train=" + space->at("large.h5")},
        Arguments{"evaluate", model(), "--data", space->at("large.h5")}})
    expect_failure(command, ExitCode::data, "large.h5: vocab_size 1000 is larger than the model's 256");

  // A file whose attribute belies its content.
  write_tokens("lying.h5", 999, 700);
  std::string bytes = read_text_file(space->folder / "lying.h5");
  for (std::size_t at = bytes.find("\xe7\x03"); at != std::string::npos; at = bytes.find("\xe7\x03", at + 1))
    bytes.replace(at, 2, std::string("\0\x01", 2));  // vocab_size 256
  write_text(space->folder / "lying.h5", bytes);
  const std::string part = "lying.h5:/tokens: token 700 at place 0 is not below vocab_size 256";
  expect_failure({"evaluate", model(), "--data", space->at("lying.h5")}, ExitCode::data, part);
  expect_failure({"data", "inspect", space->at("lying.h5")}, ExitCode::data, part);
  expect_failure({"train", space->at("tune.yaml"), "data.train=" + space->at("lying.h5"),
                  "data.shuffle=false", "data.validation=null", "run.output=" + space->at("lied")},
                 ExitCode::data, part, /*after_log=*/true);
}

// As a file of another program may describe its own.
TEST_F(BadInput, ATokenizerThatIsNoPath) {
  write_tokens("described.h5", 256, 3, 200, std::string(5000, 'x'));
  expect_done({"train", space->at("scratch.yaml"), "phases.0.steps=1", "phases.0.schedule.warmup=0",
               "data.train=" + space->at("described.h5"), "run.output=" + space->at("described")});
}

TEST_F(BadInput, TooFewTokens) {
  write_tokens("few.h5", 256, 3, 32);
  expect_failure({"train", space->at("tune.yaml"), "data.train=" + space->at("few.h5")}, ExitCode::data,
                 "few.h5: 32 tokens make no sequence of data.sequence_length 32 and its next token");
  write_tokens("one.h5", 256, 3, 1);
  expect_failure({"evaluate", model(), "--data", space->at("one.h5")}, ExitCode::data, "at least 2 tokens");
}

TEST_F(BadInput, TextThatCannotBeRead) {
  expect_failure({"data", "prepare", "--input", space->at("no.txt"), "--output", space->at("o.h5")},
                 ExitCode::data, "no.txt: cannot read: No such file or directory");
  write_text(space->folder / "bad.jsonl", "{\"text\": \"a\"}\n{\"txt\": 1}\n");
  expect_failure({"data", "prepare", "--input", space->at("bad.jsonl"), "--output", space->at("o.h5")},
                 ExitCode::data, "bad.jsonl:2");
  expect_failure({"data", "prepare", "--input", space->at("text.txt"), "--output", space->at("o.h5"),
                  "--tokenizer", "bites"},
                 ExitCode::usage, "bites");
  EXPECT_FALSE(fs::exists(space->folder / "o.h5"));
}

// Trained on them, a model would learn nothing but noise.
TEST_F(BadInput, BytesForAModelOfOtherTokens) {
  const fs::path folder = broken_model();
  fs::copy_file(fs::path(FLASHEVA_FIXTURES) / "tokenizer/tokenizer.json", folder / "tokenizer.json",
                fs::copy_options::overwrite_existing);
  const std::string part = "its tokens are bytes, those of " + folder.string() + " are others";
  expect_failure({"train", space->at("tune.yaml"), "model.from=" + folder.string()}, ExitCode::data,
                 "train.h5: " + part);
  expect_failure({"evaluate", folder, "--data", space->at("validation.h5")}, ExitCode::data,
                 "validation.h5: " + part);
  EXPECT_FALSE(fs::exists(space->folder / "tuned"));
}

// ---- model folders and safetensors

TEST_F(BadInput, WhatIsNoModelFolder) {
  const auto expect_all = [&](const std::string& path, const std::string& part) {
    expect_failure({"generate", path, "--prompt", "a"}, ExitCode::data, path + ": " + part);
    expect_failure({"convert", path, space->at("c")}, ExitCode::data, path + ": " + part);
    expect_failure({"plan", space->at("tune.yaml"), "model.from=" + path}, ExitCode::data,
                   path + ": " + part);
  };
  expect_all("EleutherAI/pythia-70m", "no such folder; give a model folder on this machine");
  expect_all(model() + "/config.json", "a file; give the model folder");
  expect_all(space->at("pretrained"), "the folder of a run; its model is " + model());
  expect_all(space->at("pretrained/checkpoints"), "not a model folder");
  fs::create_directories(space->folder / "unfinished/checkpoints");
  expect_all(space->at("unfinished"), "the folder of a run that has not finished");
}

TEST_F(BadInput, APointerOfGitLfs) {
  const fs::path folder = broken_model();
  write_text(folder / "model.safetensors",
             "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 166029852\n");
  expect_failure({"generate", folder, "--prompt", "a"}, ExitCode::data, "fetch the file with `git lfs pull`");
}

TEST_F(BadInput, BrokenModelFolders) {
  const auto expect_all = [&](const std::string& folder, const std::string& part) {
    write_tokens("fine.h5", 256, 3);
    const StoredTensor tokens{StoredType::I32, {1, 1}, std::as_bytes(std::span("\0\0\0", 4))};
    write_safetensors(space->folder / "t.safetensors", {{"tokens", tokens}});
    expect_failure({"evaluate", folder, "--data", space->at("fine.h5")}, ExitCode::data, part);
    expect_failure({"generate", folder, "--prompt", "a"}, ExitCode::data, part);
    expect_failure({"logits", folder, "--tokens", space->at("t.safetensors"), "--output", space->at("l")},
                   ExitCode::data, part);
    expect_failure({"convert", folder, space->at("c")}, ExitCode::data, part);
    expect_failure({"train", space->at("tune.yaml"), "model.from=" + folder}, ExitCode::data, part);
    EXPECT_FALSE(fs::exists(space->folder / "c"));
  };
  fs::path folder = broken_model();
  fs::remove(folder / "model.safetensors");
  expect_all(folder, "model.safetensors");

  folder = broken_model();
  fs::resize_file(folder / "model.safetensors", fs::file_size(folder / "model.safetensors") - 1);
  expect_all(folder, "broken/model.safetensors: ");

  folder = broken_model();
  write_text(folder / "model.safetensors", std::string(7, '\xff'));
  expect_all(folder, "broken/model.safetensors: ");

  folder = broken_model();
  std::string config = read_text_file(folder / "config.json");
  write_text(folder / "config.json", config.replace(config.find("\"gelu\""), 6, "\"relu\""));
  expect_all(folder, "hidden_act");

  folder = broken_model();
  write_text(folder / "config.json", "{\"vocab_size\": ");
  expect_all(folder, "broken/config.json");
}

TEST_F(BadInput, MissingMisshapenAndForeignTensors) {
  const auto rewrite = [&](auto change) {
    const fs::path folder = broken_model();
    const SafetensorsReader file{fs::path(model())};
    NamedTensors tensors(file.tensors().begin(), file.tensors().end());
    for (std::size_t i = 0; i < tensors.size(); ++i)
      if (tensors[i].first == "gpt_neox.layers.1.mlp.dense_h_to_4h.weight") change(tensors, i);
    write_safetensors(folder / "model.safetensors", tensors);
  };
  const std::string name = "tensor gpt_neox.layers.1.mlp.dense_h_to_4h.weight";
  const Arguments command = {"convert", space->at("broken"), space->at("c")};
  rewrite(
      [](auto& tensors, std::size_t i) { tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(i)); });
  expect_failure(command, ExitCode::data, name);
  rewrite([](auto& tensors, std::size_t i) {
    std::swap(tensors[i].second.shape[0], tensors[i].second.shape[1]);
  });
  EXPECT_NE(expect_failure(command, ExitCode::data, name).find("32, 64"), std::string::npos);
  rewrite([](auto& tensors, std::size_t i) { tensors[i].second.dtype = StoredType::I32; });
  expect_failure(command, ExitCode::data, name);
  rewrite([](auto& tensors, std::size_t i) { tensors.emplace_back("gpt_neox.extra", tensors[i].second); });
  expect_failure(command, ExitCode::data, "tensor gpt_neox.extra does not belong to this model");
  EXPECT_FALSE(fs::exists(space->folder / "c"));
}

TEST_F(BadInput, LogitsOfImpossibleTokens) {
  const auto expect_refused_tokens = [&](StoredType type, const std::vector<std::int64_t>& shape,
                                         const std::vector<std::int32_t>& values, const std::string& part) {
    write_safetensors(space->folder / "t.safetensors",
                      {{"tokens", {type, shape, std::as_bytes(std::span(values))}}});
    expect_failure({"logits", model(), "--tokens", space->at("t.safetensors"), "--output", space->at("l")},
                   ExitCode::data, part);
  };
  expect_refused_tokens(StoredType::I32, {1, 3}, {1, 256, 2}, "token 256 at place 1");
  expect_refused_tokens(StoredType::I32, {3, 1}, {1, 2, -1}, "token -1 at place 2");
  expect_refused_tokens(StoredType::I32, {3}, {1, 2, 3}, "(B, T)");
  expect_refused_tokens(StoredType::I32, {0, 3}, {}, "not empty");
  expect_refused_tokens(StoredType::F32, {1, 3}, {1, 2, 3}, "tokens");
  write_safetensors(space->folder / "t.safetensors", {});
  expect_failure({"logits", model(), "--tokens", space->at("t.safetensors"), "--output", space->at("l")},
                 ExitCode::data, "tokens");
  EXPECT_FALSE(fs::exists(space->folder / "l"));
}

TEST_F(BadInput, GenerateWithoutTokenizer) {
  const fs::path folder = broken_model();
  fs::remove(folder / "tokenizer.json");
  expect_failure({"generate", folder, "--prompt", "a"}, ExitCode::data, "no tokenizer.json");
}

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
