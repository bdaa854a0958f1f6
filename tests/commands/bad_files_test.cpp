// Bad files. What can be wrong inside one is tested beside the code that reads it.
#include <gtest/gtest.h>

#include "tests/commands/bad_input.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;

using BadFiles = BadInput;

// ---- token files

TEST_F(BadFiles, MissingTruncatedAndForeignTokenFiles) {
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

TEST_F(BadFiles, TokensBeyondTheVocabulary) {
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
TEST_F(BadFiles, ATokenizerThatIsNoPath) {
  write_tokens("described.h5", 256, 3, 200, std::string(5000, 'x'));
  expect_done({"train", space->at("scratch.yaml"), "phases.0.steps=1", "phases.0.schedule.warmup=0",
               "data.train=" + space->at("described.h5"), "run.output=" + space->at("described")});
}

TEST_F(BadFiles, TooFewTokens) {
  write_tokens("few.h5", 256, 3, 32);
  expect_failure({"train", space->at("tune.yaml"), "data.train=" + space->at("few.h5")}, ExitCode::data,
                 "few.h5: 32 tokens make no sequence of data.sequence_length 32 and its next token");
  write_tokens("one.h5", 256, 3, 1);
  expect_failure({"evaluate", model(), "--data", space->at("one.h5")}, ExitCode::data, "at least 2 tokens");
}

TEST_F(BadFiles, TextThatCannotBeRead) {
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
TEST_F(BadFiles, BytesForAModelOfOtherTokens) {
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

TEST_F(BadFiles, WhatIsNoModelFolder) {
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

TEST_F(BadFiles, APointerOfGitLfs) {
  const fs::path folder = broken_model();
  write_text(folder / "model.safetensors",
             "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 166029852\n");
  expect_failure({"generate", folder, "--prompt", "a"}, ExitCode::data, "fetch the file with `git lfs pull`");
}

TEST_F(BadFiles, BrokenModelFolders) {
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

TEST_F(BadFiles, MissingMisshapenAndForeignTensors) {
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

TEST_F(BadFiles, LogitsOfImpossibleTokens) {
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

TEST_F(BadFiles, GenerateWithoutTokenizer) {
  const fs::path folder = broken_model();
  fs::remove(folder / "tokenizer.json");
  expect_failure({"generate", folder, "--prompt", "a"}, ExitCode::data, "no tokenizer.json");
}

}  // namespace
}  // namespace flasheva
