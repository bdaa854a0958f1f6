#include "src/training/metrics.h"

#include <algorithm>
#include <string>
#include <system_error>

namespace flasheva {

namespace {
std::uint64_t bytes_to_keep(const std::filesystem::path& path, std::uint64_t at_most) {
  std::error_code missing;
  const std::uintmax_t bytes = std::filesystem::file_size(path, missing);
  return missing ? 0 : std::min<std::uint64_t>(at_most, bytes);
}
}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, std::uint64_t keep_bytes)
    : bytes_(bytes_to_keep(path, keep_bytes)), file_(path, static_cast<std::int64_t>(bytes_)) {}

// One write a line, so that a reader never sees half of one but where the disk is full.
void MetricsLog::write(const nlohmann::ordered_json& entry) {
  const std::string line = entry.dump() + "\n";
  file_.write(line);
  bytes_ += line.size();
}

}  // namespace flasheva
