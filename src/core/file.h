// Files, read whole or written so that a crash leaves either the old content or the new. Every failure is an
// Error with the path and the system's reason: ExitCode::data for reading, ExitCode::disk for writing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace flasheva {

// The whole file; at most `max_bytes`, else an Error.
std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes = std::size_t{1} << 30);

// A sequential reader of a regular file.
class FileReader {
 public:
  explicit FileReader(const std::filesystem::path& path);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  // Fills `out` from its start and gives the number of bytes: fewer than asked only at the end of the file.
  std::size_t read(void* out, std::size_t bytes);
  void seek(std::int64_t position);
  std::int64_t position() const { return position_; }
  std::int64_t bytes() const { return bytes_; }  // of the file when it was opened

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::int64_t position_ = 0, bytes_ = 0;
};

// A sequential writer. close() flushes to the device (fsync) and reports failure, the destructor closes
// without reporting. A long file is flushed on its way, so that no flush takes long.
class FileWriter {
 public:
  explicit FileWriter(const std::filesystem::path& path);  // creates or truncates
  // Goes on after the first `kept_bytes` of a file, which is created where it is missing; cuts off the rest.
  FileWriter(const std::filesystem::path& path, std::int64_t kept_bytes);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void sync();  // flushes to the device what was written so far
  void close();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::size_t unflushed_bytes_ = 0;
};

// Flushes a folder's entries to the device, so that renames and new files in it survive a crash.
void sync_folder(const std::filesystem::path& folder);

// Writes a temporary file beside `path`, flushes it, renames it over `path` and flushes the folder. Where
// `path` is a link, so with the file that it leads to; a device or a pipe, such as /dev/null, is written to.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

// Error{usage} where `output`, which `flag` names, is the file `input`: writing it would lose what was read.
void refuse_same_file(const std::filesystem::path& input, const std::filesystem::path& output,
                      const char* flag);

// Creates the folder and its parents.
void create_folders(const std::filesystem::path& folder);

// Keeps a folder from other programs that ask for it, until the end of its life or of the program.
// Error{data} where another still has it after `patience_seconds`; `choice` is what names the folder, for
// advice ("--output"). Where a file system knows no locks, nobody is kept out.
class FolderLock {
 public:
  FolderLock(const std::filesystem::path& folder, const char* choice, double patience_seconds = 0);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_ = -1;
};

// A read-only map of a file. The file must not shrink while mapped.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// XXH3-64.
std::uint64_t checksum_of(std::span<const std::byte> bytes);

// XXH3-128 of the file's content, 32 hexadecimal digits.
std::string checksum_of_file(const std::filesystem::path& path);

}  // namespace flasheva
