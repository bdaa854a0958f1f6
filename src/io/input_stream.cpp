#include "src/io/input_stream.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <new>
#include <vector>

#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/text.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t buffer_bytes = 1 << 18;

[[noreturn]] void fail_shortened(const fs::path& path) {
  fail(ExitCode::data, "{}: shorter than when it was read before; start anew with --fresh", path.string());
}

class PlainStream : public InputStream {
 public:
  explicit PlainStream(const fs::path& path) : path_(path), file_(path) {}

  std::size_t read(std::span<char> out) override { return file_.read(out.data(), out.size()); }
  void skip(std::int64_t bytes) override {
    if (bytes > file_.bytes() - file_.position()) fail_shortened(path_);
    file_.seek(file_.position() + bytes);
  }
  std::int64_t file_bytes() const override { return file_.position(); }

 private:
  fs::path path_;
  FileReader file_;
};

// What both decoders need: the file a buffer at a time, and words for what is wrong with it.
class CompressedStream : public InputStream {
 public:
  CompressedStream(const fs::path& path, const char* format)
      : path_(path), format_(format), file_(path), buffer_(buffer_bytes) {}

  void skip(std::int64_t bytes) override {
    std::vector<char> scratch(buffer_bytes);
    while (bytes > 0) {
      const auto count = static_cast<std::size_t>(std::min<std::int64_t>(bytes, buffer_bytes));
      if (read(std::span(scratch).first(count)) < count) fail_shortened(path_);
      bytes -= static_cast<std::int64_t>(count);
    }
  }

  std::int64_t file_bytes() const override {
    return file_.position() - static_cast<std::int64_t>(unread_bytes());
  }

 protected:
  virtual std::size_t unread_bytes() const = 0;

  std::span<char> next_buffer() {
    return std::span(buffer_).first(file_.read(buffer_.data(), buffer_.size()));
  }

  [[noreturn]] void fail_damaged(const char* reason) const {
    fail(ExitCode::data, "{}: not valid {} at byte {} ({}); fetch or compress the file again", path_.string(),
         format_, file_bytes(), printable(reason));
  }
  [[noreturn]] void fail_truncated() const {
    fail(ExitCode::data, "{}: the {} data ends too early, at byte {}; fetch or compress the file again",
         path_.string(), format_, file_bytes());
  }

 private:
  fs::path path_;
  const char* format_;
  FileReader file_;
  std::vector<char> buffer_;
};

class GzipStream : public CompressedStream {
 public:
  explicit GzipStream(const fs::path& path) : CompressedStream(path, "gzip") {
    if (inflateInit2(&stream_, MAX_WBITS + gzip_header) != Z_OK) throw std::bad_alloc();
  }
  ~GzipStream() override { inflateEnd(&stream_); }

  std::size_t read(std::span<char> out) override {
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(out.size());
    while (stream_.avail_out > 0) {
      if (stream_.avail_in == 0 && !refill()) {
        if (in_member_) fail_truncated();
        break;
      }
      if (!in_member_) inflateReset(&stream_);
      const int code = inflate(&stream_, Z_NO_FLUSH);
      if (code != Z_OK && code != Z_STREAM_END)
        fail_damaged(stream_.msg != nullptr ? stream_.msg : zError(code));
      in_member_ = code != Z_STREAM_END;
    }
    return out.size() - stream_.avail_out;
  }

 protected:
  std::size_t unread_bytes() const override { return stream_.avail_in; }

 private:
  static constexpr int gzip_header = 16;

  bool refill() {
    const std::span<char> bytes = next_buffer();
    stream_.next_in = reinterpret_cast<Bytef*>(bytes.data());
    stream_.avail_in = static_cast<uInt>(bytes.size());
    return !bytes.empty();
  }

  z_stream stream_{};
  bool in_member_ = true;  // an empty file lacks one
};

class ZstdStream : public CompressedStream {
 public:
  explicit ZstdStream(const fs::path& path) : CompressedStream(path, "Zstandard") {
    if (decoder_ == nullptr) throw std::bad_alloc();
  }

  std::size_t read(std::span<char> out) override {
    ZSTD_outBuffer text{out.data(), out.size(), 0};
    while (text.pos < text.size) {
      const bool ended = in_.pos == in_.size && !refill();
      if (ended && !in_frame_) break;
      const std::size_t before = text.pos;
      const std::size_t code = ZSTD_decompressStream(decoder_.get(), &text, &in_);
      if (ZSTD_isError(code)) fail_damaged(ZSTD_getErrorName(code));
      in_frame_ = code != 0;
      if (ended && in_frame_ && text.pos == before) fail_truncated();  // nothing was left to flush
    }
    return text.pos;
  }

 protected:
  std::size_t unread_bytes() const override { return in_.size - in_.pos; }

 private:
  bool refill() {
    const std::span<char> bytes = next_buffer();
    in_ = {bytes.data(), bytes.size(), 0};
    return !bytes.empty();
  }

  std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> decoder_{ZSTD_createDCtx(), &ZSTD_freeDCtx};
  ZSTD_inBuffer in_{nullptr, 0, 0};
  bool in_frame_ = true;  // an empty file lacks one
};

}  // namespace

void check_format(const fs::path& path) {
  struct Format {
    std::string_view start;
    const char *name, *extension;  // by which open_input knows it; none: it does not
  };
  using namespace std::string_view_literals;
  static constexpr Format formats[] = {
      {"\x1f\x8b"sv, "a gzip", ".gz"},       {"\x28\xb5\x2f\xfd"sv, "a Zstandard", ".zst"},
      {"\xfd\x37zXZ\0"sv, "an xz", nullptr}, {"BZh91AY"sv, "a bzip2", nullptr},
      {"PK\x03\x04"sv, "a zip", nullptr},    {"PAR1"sv, "a Parquet", nullptr},
      {"ARROW1\0"sv, "an Arrow", nullptr},   {"\x89HDF\r\n"sv, "an HDF5", nullptr},
      {"\xff\xfe"sv, "a UTF-16", nullptr},
  };
  std::array<char, 8> first{};
  const std::size_t bytes = FileReader(path).read(first.data(), first.size());
  for (const Format& format : formats) {
    if (!std::string_view(first.data(), bytes).starts_with(format.start)) continue;
    if (format.extension == nullptr)
      fail(ExitCode::data, "{}: {} file; UTF-8 text and .jsonl are read, also as .gz and .zst", path.string(),
           format.name);
    if (path.extension() != format.extension)
      fail(ExitCode::data, "{}: {} file; give it a name that ends in {}", path.string(), format.name,
           format.extension);
  }
}

std::unique_ptr<InputStream> open_input(const fs::path& path) {
  if (path.extension() == ".gz") return std::make_unique<GzipStream>(path);
  if (path.extension() == ".zst") return std::make_unique<ZstdStream>(path);
  return std::make_unique<PlainStream>(path);
}

fs::path without_compression(const fs::path& path) {
  return path.extension() == ".gz" || path.extension() == ".zst" ? fs::path(path).replace_extension() : path;
}

}  // namespace flasheva
