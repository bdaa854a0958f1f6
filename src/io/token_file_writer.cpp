#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>

#include "kernels/check.h"
#include "src/core/error.h"
#include "src/core/file.h"
#include "src/io/hdf5_handle.h"
#include "src/io/token_file.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t chunk_elements = 1 << 16;   // of tokens
constexpr std::size_t offset_elements = 1 << 13;  // of document offsets

}  // namespace

struct TokenFileWriter::State {
  fs::path path, temporary;
  TokenFileAttributes attributes;
  Hdf5Handle file, tokens;
  Hdf5Handle document_offsets;        // created at the first document's end
  std::vector<std::int32_t> pending;  // at most a chunk
  std::int64_t written = 0;
  std::vector<std::uint64_t> pending_offsets{0};  // at most a chunk
  std::int64_t written_offsets = 0;
  std::uint64_t last_offset = 0;
  bool created = false, finished = false;

  ~State();
  std::int64_t appended() const { return written + static_cast<std::int64_t>(pending.size()); }

  void check(bool succeeded) const {
    if (!succeeded) fail(ExitCode::disk, "{}: cannot write: {}", path.string(), hdf5_reason());
  }
  void check_system(bool succeeded) const {
    if (!succeeded) fail(ExitCode::disk, "{}: cannot write: {}", path.string(), std::strerror(errno));
  }

  void create();
  Hdf5Handle create_dataset(const char* name, hid_t type, hsize_t chunk) const;
  void write_integer(const char* name, std::int64_t value) const;
  void write_text(const char* name, const std::string& text) const;
  void append_to(hid_t dataset, std::int64_t start, hid_t type, const void* values, std::size_t count) const;
  void flush_tokens();
  void flush_offsets();
  void close_and_rename();
};

// Of a file that did not get finished nothing stays behind.
TokenFileWriter::State::~State() {
  if (!created || finished) return;
  tokens.abandon();
  document_offsets.abandon();
  file.abandon();
  std::error_code ignored;
  fs::remove(temporary, ignored);
}

void TokenFileWriter::State::create() {
  file = Hdf5Handle(H5Fcreate(temporary.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
  check(file.valid());
  created = true;
  const hid_t type = fits_uint16(attributes.vocab_size) ? H5T_STD_U16LE : H5T_STD_U32LE;
  tokens = create_dataset("/tokens", type, chunk_elements);

  write_integer("vocab_size", attributes.vocab_size);
  if (attributes.eos_token_id) write_integer("eos_token_id", *attributes.eos_token_id);
  if (!attributes.tokenizer.empty()) write_text("tokenizer", attributes.tokenizer);
  if (!attributes.source.empty()) write_text("source", attributes.source);
}

// Empty, and growing in chunks.
Hdf5Handle TokenFileWriter::State::create_dataset(const char* name, hid_t type, hsize_t chunk) const {
  const hsize_t none = 0, unlimited = H5S_UNLIMITED;
  const Hdf5Handle space(H5Screate_simple(1, &none, &unlimited));
  const Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE));
  check(H5Pset_chunk(properties, 1, &chunk) >= 0);
  H5Pset_obj_track_times(properties, false);  // the same tokens give the same bytes
  Hdf5Handle dataset(H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT));
  check(dataset.valid());
  return dataset;
}

void TokenFileWriter::State::write_integer(const char* name, std::int64_t value) const {
  const Hdf5Handle space(H5Screate(H5S_SCALAR));
  const Hdf5Handle attribute(H5Acreate2(tokens, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT));
  check(attribute.valid() && H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0);
}

// Variable-length UTF-8, which h5py gives back as str.
void TokenFileWriter::State::write_text(const char* name, const std::string& text) const {
  const Hdf5Handle type(H5Tcopy(H5T_C_S1));
  check(H5Tset_size(type, H5T_VARIABLE) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0);
  const Hdf5Handle space(H5Screate(H5S_SCALAR));
  const Hdf5Handle attribute(H5Acreate2(tokens, name, type, space, H5P_DEFAULT, H5P_DEFAULT));
  const char* characters = text.c_str();
  check(attribute.valid() && H5Awrite(attribute, type, &characters) >= 0);
}

void TokenFileWriter::State::append_to(hid_t dataset, std::int64_t start, hid_t type, const void* values,
                                       std::size_t count) const {
  const hsize_t first = static_cast<hsize_t>(start), added = count, size = first + added;
  check(H5Dset_extent(dataset, &size) >= 0);
  const Hdf5Handle space(H5Dget_space(dataset));
  const Hdf5Handle memory(H5Screate_simple(1, &added, nullptr));
  check(H5Sselect_hyperslab(space, H5S_SELECT_SET, &first, nullptr, &added, nullptr) >= 0);
  check(H5Dwrite(dataset, type, memory, space, H5P_DEFAULT, values) >= 0);
}

void TokenFileWriter::State::flush_tokens() {
  if (pending.empty()) return;
  append_to(tokens, written, H5T_NATIVE_INT32, pending.data(), pending.size());
  written += static_cast<std::int64_t>(pending.size());
  pending.clear();
}

void TokenFileWriter::State::flush_offsets() {
  if (!document_offsets.valid())
    document_offsets = create_dataset("/document_offsets", H5T_STD_U64LE, offset_elements);
  append_to(document_offsets, written_offsets, H5T_NATIVE_UINT64, pending_offsets.data(),
            pending_offsets.size());
  written_offsets += static_cast<std::int64_t>(pending_offsets.size());
  pending_offsets.clear();
}

void TokenFileWriter::State::close_and_rename() {
  check(H5Fflush(file, H5F_SCOPE_LOCAL) >= 0);
  check(tokens.reset() && document_offsets.reset());
  check(file.reset());
  const int descriptor = ::open(temporary.c_str(), O_RDONLY | O_CLOEXEC);
  check_system(descriptor >= 0);
  const bool flushed = ::fsync(descriptor) == 0;
  check_system(::close(descriptor) == 0 && flushed);
  check_system(std::rename(temporary.c_str(), path.c_str()) == 0);
  sync_folder(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

TokenFileWriter::TokenFileWriter(const fs::path& path, const TokenFileAttributes& attributes)
    : state_(std::make_unique<State>()) {
  FLASHEVA_CHECK(attributes.vocab_size > 0 &&
                 attributes.vocab_size <= std::numeric_limits<std::int32_t>::max());
  start_hdf5();
  state_->path = path;
  state_->temporary = path.string() + ".tmp";
  state_->attributes = attributes;
  state_->pending.reserve(chunk_elements);
  state_->create();
}

TokenFileWriter::~TokenFileWriter() = default;

void TokenFileWriter::append(std::span<const std::int32_t> tokens) {
  State& s = *state_;
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= s.attributes.vocab_size)
      fail(ExitCode::data, "{}:/tokens: token {} at place {} is not below vocab_size {}", s.path.string(),
           tokens[i], s.appended() + static_cast<std::int64_t>(i), s.attributes.vocab_size);
  while (!tokens.empty()) {
    const std::size_t count = std::min(tokens.size(), chunk_elements - s.pending.size());
    s.pending.insert(s.pending.end(), tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(count));
    tokens = tokens.subspan(count);
    if (s.pending.size() == chunk_elements) s.flush_tokens();
  }
}

void TokenFileWriter::end_document() {
  State& s = *state_;
  s.last_offset = static_cast<std::uint64_t>(s.appended());
  s.pending_offsets.push_back(s.last_offset);
  if (s.pending_offsets.size() == offset_elements) s.flush_offsets();
}

std::int64_t TokenFileWriter::tokens() const { return state_->appended(); }

std::int64_t TokenFileWriter::documents() const {
  return state_->written_offsets + static_cast<std::int64_t>(state_->pending_offsets.size()) - 1;
}

void TokenFileWriter::finish() {
  State& s = *state_;
  s.flush_tokens();
  if (documents() > 0) {
    if (s.last_offset != static_cast<std::uint64_t>(s.written)) end_document();
    if (!s.pending_offsets.empty()) s.flush_offsets();
  }
  s.close_and_rename();
  s.finished = true;
}

}  // namespace flasheva
