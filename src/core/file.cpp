#include "src/core/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include "src/core/clock.h"
#include "src/core/error.h"
#include "src/core/log.h"
#include "src/core/pieces_done.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t piece_bytes = std::size_t{256} << 20;  // of a file: read, or on the device

[[noreturn]] void fail_writing(const fs::path& path, int error) {
  const char* advice = error == ENOSPC                     ? "; free some space and start again"
                       : error == EACCES || error == EROFS ? "; choose a folder you may write to"
                                                           : "";
  fail(ExitCode::disk, "{}: cannot write: {}{}", path.string(), std::strerror(error), advice);
}

[[noreturn]] void fail_reading(const fs::path& path, const char* reason) {
  fail(ExitCode::data, "{}: cannot read: {}", path.string(), reason);
}

// A regular file, opened to be read.
struct OpenFile {
  int descriptor;
  std::size_t bytes;
};
OpenFile open_regular_file(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_reading(path, std::strerror(errno));
  struct stat status {};
  const char* fault = ::fstat(descriptor, &status) != 0 ? std::strerror(errno)
                      : S_ISDIR(status.st_mode)         ? std::strerror(EISDIR)
                      : S_ISREG(status.st_mode)         ? nullptr
                                                        : "not a regular file";
  if (fault == nullptr) return {descriptor, static_cast<std::size_t>(status.st_size)};
  ::close(descriptor);
  fail_reading(path, fault);
}

// To the device; pipes and terminals have none.
bool flush(int descriptor) { return ::fsync(descriptor) == 0 || errno == EINVAL; }

}  // namespace

std::string read_text_file(const fs::path& path, std::size_t max_bytes) {
  const MappedFile file(path);
  if (file.bytes().size() > max_bytes)
    fail(ExitCode::data, "{}: {} bytes, at most {} are expected here", path.string(), file.bytes().size(),
         max_bytes);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

FileReader::FileReader(const fs::path& path) : path_(path) {
  const auto [descriptor, bytes] = open_regular_file(path);
  descriptor_ = descriptor;
  bytes_ = static_cast<std::int64_t>(bytes);
}

FileReader::~FileReader() { ::close(descriptor_); }

std::size_t FileReader::read(void* out, std::size_t bytes) {
  std::size_t done = 0;
  while (done < bytes) {
    const ssize_t count = ::read(descriptor_, static_cast<char*>(out) + done, bytes - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_reading(path_, std::strerror(errno));
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  position_ += static_cast<std::int64_t>(done);
  return done;
}

void FileReader::seek(std::int64_t position) {
  if (::lseek(descriptor_, position, SEEK_SET) < 0) fail_reading(path_, std::strerror(errno));
  position_ = position;
}

FileWriter::FileWriter(const fs::path& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_writing(path_, errno);
}

FileWriter::FileWriter(const fs::path& path, std::int64_t kept_bytes) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_writing(path_, errno);
  if (::ftruncate(descriptor_, kept_bytes) == 0 && ::lseek(descriptor_, 0, SEEK_END) >= 0) return;
  const int error = errno;
  ::close(descriptor_);
  fail_writing(path_, error);
}

FileWriter::~FileWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void FileWriter::write(const void* data, std::size_t bytes) {
  const auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, at, std::min(bytes, piece_bytes - unflushed_bytes_));
    if (written < 0) {
      if (errno == EINTR) continue;
      fail_writing(path_, errno);
    }
    at += written;
    bytes -= static_cast<std::size_t>(written);
    unflushed_bytes_ += static_cast<std::size_t>(written);
    if (unflushed_bytes_ == piece_bytes) sync();
  }
}

void FileWriter::sync() {
  if (!flush(descriptor_)) fail_writing(path_, errno);
  unflushed_bytes_ = 0;
  ++pieces_done;
}

void FileWriter::close() {
  const int descriptor = std::exchange(descriptor_, -1);
  const bool flushed = flush(descriptor);
  const int error = errno;
  if (::close(descriptor) != 0 && flushed) fail_writing(path_, errno);
  if (!flushed) fail_writing(path_, error);
  ++pieces_done;
}

void sync_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail_writing(folder, errno);
  const bool flushed = flush(descriptor);
  const int error = errno;
  ::close(descriptor);
  if (!flushed) fail_writing(folder, error);
}

void write_file_atomically(const fs::path& path, std::string_view content) {
  std::error_code none;
  const bool special = fs::is_other(path, none);  // a device or a pipe
  const bool link = !special && fs::is_symlink(path, none) && fs::exists(path, none);
  const fs::path target = link ? fs::canonical(path) : path;
  const fs::path written = special ? target : fs::path(target).concat(".tmp");
  FileWriter writer(written);
  writer.write(content);
  writer.close();
  if (special) return;
  if (::rename(written.c_str(), target.c_str()) != 0) fail_writing(path, errno);
  sync_folder(target.has_parent_path() ? target.parent_path() : fs::path("."));
}

void refuse_same_file(const fs::path& input, const fs::path& output, const char* flag) {
  std::error_code missing;
  if (fs::equivalent(input, output, missing))
    fail(ExitCode::usage, "{} {}: is the file that is read; choose another", flag, output.string());
}

void create_folders(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail_writing(folder, error.value());
}

FolderLock::FolderLock(const fs::path& folder, const char* choice, double patience_seconds)
    : descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  const auto another_has_it = [this] {
    return descriptor_ >= 0 && ::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  };
  bool taken = another_has_it();
  if (taken && patience_seconds > 0)
    log_line(fmt::format("{}: another program is writing there; waiting up to {:.0f} s for it to end",
                         folder.string(), patience_seconds));
  for (const double start = seconds_now(); taken && seconds_now() - start < patience_seconds;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    taken = another_has_it();
  }
  if (!taken) return;
  ::close(descriptor_);
  fail(ExitCode::data, "{}: another program is writing there now; wait for it, or choose another {}",
       folder.string(), choice);
}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

MappedFile::MappedFile(const fs::path& path) {
  const auto [descriptor, bytes] = open_regular_file(path);
  void* data = nullptr;
  if (bytes > 0) data = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
  const int error = errno;
  ::close(descriptor);
  if (data == MAP_FAILED) fail_reading(path, std::strerror(error));
  data_ = static_cast<const std::byte*>(data);
  size_ = bytes;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

std::uint64_t checksum_of(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::string checksum_of_file(const fs::path& path) {
  const MappedFile file(path);
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), XXH3_freeState);
  XXH3_128bits_reset(state.get());
  for (std::span<const std::byte> rest = file.bytes(); !rest.empty(); ++pieces_done) {
    const std::span<const std::byte> piece = rest.first(std::min(rest.size(), piece_bytes));
    XXH3_128bits_update(state.get(), piece.data(), piece.size());
    rest = rest.subspan(piece.size());
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(state.get());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace flasheva
