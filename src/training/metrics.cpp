#include "src/training/metrics.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "src/core/error.h"

namespace flasheva {

namespace {
[[noreturn]] void fail_writing(const std::filesystem::path& path) {
  fail(ExitCode::disk, "{}: cannot write: {}", path.string(), std::strerror(errno));
}
}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, std::uint64_t keep_bytes) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_writing(path_);
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail_writing(path_);
  bytes_ = std::min<std::uint64_t>(keep_bytes, static_cast<std::uint64_t>(status.st_size));
  if (::ftruncate(descriptor_, static_cast<off_t>(bytes_)) != 0 || ::lseek(descriptor_, 0, SEEK_END) < 0)
    fail_writing(path_);
}

MetricsLog::~MetricsLog() { ::close(descriptor_); }

// One write a line, so that a reader never sees half of one; a second one only where the disk took a part, to
// learn why.
void MetricsLog::write(const nlohmann::ordered_json& entry) {
  const std::string line = entry.dump() + "\n";
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t written = ::write(descriptor_, line.data() + done, line.size() - done);
    if (written < 0) fail_writing(path_);
    done += static_cast<std::size_t>(written);
  }
  bytes_ += line.size();
}

}  // namespace flasheva
