// A folder for one test, removed with its content at the end.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace flasheva {

class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::filesystem::path& parent = std::filesystem::temp_directory_path()) {
    std::string name = (parent / "flasheva-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// Where folders stand in memory, if the machine has such a place: a disk takes most of the time of a test
// that writes checkpoint after checkpoint, each flushed.
inline std::filesystem::path memory_folder() {
  const std::filesystem::path shared_memory = "/dev/shm";
  std::error_code none;
  const std::filesystem::space_info space = std::filesystem::space(shared_memory, none);
  const bool roomy = !none && space.available >= std::uintmax_t{32} << 20;
  return roomy ? shared_memory : std::filesystem::temp_directory_path();
}

}  // namespace flasheva
