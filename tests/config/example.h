// Configurations that the tests change.
#pragma once

#include <string>
#include <vector>

#include "src/config/config.h"
#include "src/core/error.h"

namespace flasheva {

// Every required key and nothing else.
inline const std::string minimal_yaml = R"(run: {output: runs/tiny}
model: {from: models/tiny}
data: {train: data/train.h5, sequence_length: 128}
batch: {sequences: 8}
phases:
  - {name: warmup, steps: 20, train: [attention], optimizer: {lr: 1.0e-3}}
  - {name: finetune, steps: 30, train: [all], optimizer: {lr: 1.0e-4}}
)";

// The message of the Error{usage} that reading ends in; "" where it does not.
inline std::string error_of(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  try {
    parse_config(yaml, "run.yaml", overrides);
  } catch (const Error& error) {
    return error.code() == ExitCode::usage ? error.what() : std::string("another exit code: ") + error.what();
  }
  return "";
}

}  // namespace flasheva
