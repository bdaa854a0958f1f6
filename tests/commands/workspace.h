// A folder with text, token files and a config, in which the program's commands are tried.
#pragma once

#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/core/file.h"
#include "src/io/safetensors.h"
#include "tests/commands/program.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {

// Text of `bytes` bytes in which each letter leaves few choices for the next.
inline std::string some_text(std::size_t bytes, unsigned seed = 1) {
  std::string text;
  unsigned state = seed, letter = 0;
  while (text.size() < bytes) {
    state = state * 1664525u + 1013904223u;
    letter = (3 * letter + (state >> 30)) % 27;
    text += letter == 26 ? ' ' : static_cast<char>('a' + letter);
  }
  return text;
}

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  FileWriter writer(path);
  writer.write(text);
  writer.close();
}

inline nlohmann::json read_json(const std::filesystem::path& path) {
  return nlohmann::json::parse(read_text_file(path));
}

class Workspace {
 public:
  static constexpr int sequence_length = 32, micro_batch = 2;

  Workspace() {
    write_text(folder / "text.txt", some_text(5000));
    write_text(folder / "validation.txt", some_text(20 * sequence_length + 1, 2));
    prepare("text.txt", "train.h5");
    prepare("validation.txt", "validation.h5");
    write_text(folder / "one-batch.txt", some_text(micro_batch * sequence_length + 1, 3));
    prepare("one-batch.txt", "one-batch.h5");
    write_text(folder / "scratch.yaml", scratch_yaml());
    write_text(folder / "tune.yaml", tune_yaml());
  }

  void prepare(const std::string& text, const std::string& tokens) const {
    expect_done({"data", "prepare", "--input", at(text), "--output", at(tokens)});
  }

  std::string at(const std::string& name) const { return (folder / name).string(); }

  // From scratch, full attention.
  std::string scratch_yaml() const {
    return fmt::format(R"(run: {{output: {0}/pretrained, seed: 3, device: cpu}}
model:
  architecture: {{vocab_size: 256, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64}}
data: {{train: {0}/train.h5, validation: {0}/validation.h5, sequence_length: 32}}
batch: {{sequences: 4, micro: 2}}
phases:
  - {{name: pretrain, steps: 12, train: [all], optimizer: {{lr: 1.0e-2}}, schedule: {{warmup: 2}}}}
checkpoint: {{every: 5, keep: 2}}
evaluate: {{every: 6, batches: 100}}
log: {{every: 1}}
)",
                       folder.path().string());
  }

  // From there to FlashEVA in two phases, the second in bfloat16. Validation is one micro batch, which
  // `evaluate` takes as one too: matrix products of other shapes add up in another order, and bfloat16 rounds
  // such sums apart.
  std::string tune_yaml() const {
    return fmt::format(R"(run: {{output: {0}/tuned, seed: 4, device: cpu}}
model:
  from: {0}/pretrained/model
  attention: {{default: eva, layers: {{1: full}}, window: 8, chunk: 4}}
data: {{train: {0}/train.h5, validation: {0}/one-batch.h5, sequence_length: 32}}
batch: {{sequences: 4, micro: {1}}}
phases:
  - {{name: attention_warmup, steps: 6, train: [attention], optimizer: {{lr: 3.0e-3}}}}
  - {{name: full_finetune, steps: 6, precision: bf16, train: [all], optimizer: {{lr: 1.0e-3}}}}
checkpoint: {{every: 1, keep: 2}}
evaluate: {{every: 100, batches: 100}}
log: {{every: 1}}
)",
                       folder.path().string(), micro_batch);
  }

  // A figure of every line of a run's metrics.jsonl that has it.
  std::vector<double> column(const std::string& run, const std::string& key) const {
    std::vector<double> values;
    std::ifstream file(folder / run / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) {
      const nlohmann::json entry = nlohmann::json::parse(line);
      if (entry.contains(key)) values.push_back(entry[key]);
    }
    return values;
  }

  // What `flasheva logits` gives for tokens (B, T), row after row.
  std::vector<float> logits(const std::string& model, std::vector<std::int32_t> tokens,
                            std::int64_t sequences = 1, const Arguments& more = {}) const {
    const auto T = static_cast<std::int64_t>(tokens.size()) / sequences;
    const StoredTensor in{StoredType::I32, {sequences, T}, std::as_bytes(std::span(tokens))};
    write_safetensors(folder / "tokens.safetensors", {{"tokens", in}});
    Arguments arguments = {
        "logits", model, "--tokens", at("tokens.safetensors"), "--output", at("logits.safetensors")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    expect_done(arguments);
    const SafetensorsReader file(folder / "logits.safetensors");
    const StoredTensor& out = file.at("logits");
    EXPECT_EQ(out.dtype, StoredType::F32);
    EXPECT_EQ(out.shape[0], sequences);
    EXPECT_EQ(out.shape[1], T);
    std::vector<float> values(static_cast<std::size_t>(out.size()));
    std::memcpy(values.data(), out.data.data(), out.data.size());
    return values;
  }

  TemporaryFolder folder{memory_folder()};
};

inline double relative_difference(const std::vector<float>& x, const std::vector<float>& reference) {
  if (x.size() != reference.size()) return INFINITY;
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    difference += std::pow(static_cast<double>(x[i]) - reference[i], 2);
    norm += std::pow(static_cast<double>(reference[i]), 2);
  }
  const double error = std::sqrt(difference / norm);
  return std::isfinite(error) ? error : INFINITY;
}

}  // namespace flasheva
