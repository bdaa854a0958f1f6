// metrics.jsonl: one JSON object a line, for every logged step and every validation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "src/core/file.h"

namespace flasheva {

class MetricsLog {
 public:
  // Opens the file to append; `keep_bytes` of it stay, the rest (what came after the checkpoint that a run
  // goes on from) is cut off.
  MetricsLog(const std::filesystem::path& path, std::uint64_t keep_bytes);

  void write(const nlohmann::ordered_json& entry);
  // Length of the file so far: what a checkpoint keeps.
  std::uint64_t bytes() const { return bytes_; }

 private:
  std::uint64_t bytes_;
  FileWriter file_;
};

}  // namespace flasheva
