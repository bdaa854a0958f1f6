// metrics.jsonl: one JSON object a line, for every logged step and every validation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace flasheva {

class MetricsLog {
 public:
  // Opens the file to append; `keep_bytes` of it stay, the rest (what came after the checkpoint that a run
  // goes on from) is cut off.
  MetricsLog(const std::filesystem::path& path, std::uint64_t keep_bytes);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void write(const nlohmann::ordered_json& entry);
  // Length of the file so far: what a checkpoint keeps.
  std::uint64_t bytes() const { return bytes_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t bytes_ = 0;
};

}  // namespace flasheva
