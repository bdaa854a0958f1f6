#include "src/io/token_file.h"

#include <algorithm>
#include <array>
#include <functional>
#include <initializer_list>
#include <limits>

#include "kernels/check.h"
#include "src/core/error.h"
#include "src/core/text.h"
#include "src/io/hdf5_handle.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t block_elements = 1 << 20;            // of a whole-file pass
constexpr std::size_t chunk_cache_bytes = 16 << 20;         // of one dataset: neighbouring reads share chunks
constexpr std::size_t max_filtered_chunk_bytes = 64 << 20;  // is inflated whole to read any part of it
constexpr std::size_t max_text_attribute_bytes = 64 << 10;

Hdf5Handle open_file(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) fail(ExitCode::data, "{}: cannot read: No such file or directory", path.string());
  if (fs::is_directory(status)) fail(ExitCode::data, "{}: a folder, not an HDF5 token file", path.string());

  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_file_locking(access, true, true);  // file systems without locks are read all the same
  Hdf5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access));
  if (!file.valid())
    fail(ExitCode::data, "{}: not a readable HDF5 file ({}); make one with `flasheva data prepare`",
         path.string(), hdf5_reason());
  return file;
}

// True where `name` is a dataset's own link in this file; false where it is absent.
bool has_own_link(hid_t file, const char* name, const std::string& where) {
  if (H5Lexists(file, name, H5P_DEFAULT) <= 0) return false;
  H5L_info_t info{};
  if (H5Lget_info(file, name, &info, H5P_DEFAULT) < 0) fail(ExitCode::data, "{}: {}", where, hdf5_reason());
  if (info.type != H5L_TYPE_HARD)
    fail(ExitCode::data, "{}: is {} link; store the data in this file", where,
         info.type == H5L_TYPE_EXTERNAL ? "an external" : "a soft");
  return true;
}

// Refuses what would read other files, run plugins or inflate without bound.
void check_storage(hid_t dataset, const std::string& where) {
  const Hdf5Handle created(H5Dget_create_plist(dataset));
  const H5D_layout_t layout = H5Pget_layout(created);
  if (layout == H5D_VIRTUAL)
    fail(ExitCode::data, "{}: is a virtual dataset; store the data in this file", where);
  if (H5Pget_external_count(created) != 0)
    fail(ExitCode::data, "{}: keeps its data in external files; store the data in this file", where);

  const int filters = H5Pget_nfilters(created);
  for (int i = 0; i < filters; ++i) {
    unsigned flags = 0;
    std::size_t values = 0;
    std::array<char, 64> name{};
    const H5Z_filter_t filter = H5Pget_filter2(created, static_cast<unsigned>(i), &flags, &values, nullptr,
                                               name.size(), name.data(), nullptr);
    if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_FLETCHER32)
      fail(ExitCode::data, "{}: uses filter {} ({}); use gzip, shuffle and fletcher32 only", where, filter,
           printable(name.data()));
  }

  hsize_t chunk = 0;
  if (filters > 0 && layout == H5D_CHUNKED && H5Pget_chunk(created, 1, &chunk) == 1) {
    const Hdf5Handle type(H5Dget_type(dataset));
    if (chunk > max_filtered_chunk_bytes / H5Tget_size(type))
      fail(ExitCode::data, "{}: has filtered chunks of {} elements; write chunks of 65536", where, chunk);
  }
}

// The one-dimensional dataset `name`, of one of `types` (in words: `expected`); invalid where there is none.
Hdf5Handle open_dataset(hid_t file, const fs::path& path, const char* name,
                        std::initializer_list<hid_t> types, const char* expected) {
  const std::string where = path.string() + ":" + name;
  if (!has_own_link(file, name, where)) return {};

  const Hdf5Handle access(H5Pcreate(H5P_DATASET_ACCESS));
  H5Pset_chunk_cache(access, H5D_CHUNK_CACHE_NSLOTS_DEFAULT, chunk_cache_bytes, H5D_CHUNK_CACHE_W0_DEFAULT);
  Hdf5Handle dataset(H5Dopen2(file, name, access));
  if (!dataset.valid()) fail(ExitCode::data, "{}: not a readable dataset ({})", where, hdf5_reason());

  const Hdf5Handle space(H5Dget_space(dataset));
  if (H5Sget_simple_extent_type(space) != H5S_SIMPLE || H5Sget_simple_extent_ndims(space) != 1)
    fail(ExitCode::data, "{}: has {} dimensions; it must be one-dimensional", where,
         std::max(0, H5Sget_simple_extent_ndims(space)));
  const Hdf5Handle type(H5Dget_type(dataset));
  if (std::none_of(types.begin(), types.end(), [&](hid_t good) { return H5Tequal(type, good) > 0; }))
    fail(ExitCode::data, "{}: is {}; it must be {}", where, name_of_hdf5_type(type), expected);
  check_storage(dataset, where);
  return dataset;
}

std::int64_t length_of(hid_t dataset) {
  const Hdf5Handle space(H5Dget_space(dataset));
  return H5Sget_simple_extent_npoints(space);
}

void read_range(hid_t dataset, std::int64_t first, std::int64_t count, hid_t memory_type, void* out,
                const fs::path& path, const char* name) {
  const auto start = static_cast<hsize_t>(first), size = static_cast<hsize_t>(count);
  const Hdf5Handle space(H5Dget_space(dataset));
  const Hdf5Handle memory(H5Screate_simple(1, &size, nullptr));
  if (H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, nullptr, &size, nullptr) < 0 ||
      H5Dread(dataset, memory_type, memory, space, H5P_DEFAULT, out) < 0)
    fail(ExitCode::data, "{}:{}: cannot read elements {} to {} ({}); the file is damaged, make it again",
         path.string(), name, first, first + count, hdf5_reason());
}

// The attribute `name`, a single element; invalid where there is none.
Hdf5Handle open_attribute(hid_t dataset, const char* name, const std::string& where) {
  if (H5Aexists(dataset, name) <= 0) return {};
  Hdf5Handle attribute(H5Aopen(dataset, name, H5P_DEFAULT));
  const Hdf5Handle space(H5Aget_space(attribute));
  if (!attribute.valid() || H5Sget_simple_extent_npoints(space) != 1)
    fail(ExitCode::data, "{}: attribute {} must be a single value", where, name);
  return attribute;
}

std::optional<std::int64_t> integer_attribute(hid_t dataset, const char* name, const std::string& where) {
  const Hdf5Handle attribute = open_attribute(dataset, name, where);
  if (!attribute.valid()) return std::nullopt;
  const Hdf5Handle type(H5Aget_type(attribute));
  std::int64_t value = 0;
  if (H5Tget_class(type) != H5T_INTEGER || H5Aread(attribute, H5T_NATIVE_INT64, &value) < 0)
    fail(ExitCode::data, "{}: attribute {} is {}; it must be an integer", where, name,
         name_of_hdf5_type(type));
  return value;
}

// Fixed-length text as NumPy's bytes and variable-length text as h5py's str are both read; "" where absent.
std::string text_attribute(hid_t dataset, const char* name, const std::string& where) {
  const Hdf5Handle attribute = open_attribute(dataset, name, where);
  if (!attribute.valid()) return {};
  const Hdf5Handle type(H5Aget_type(attribute));
  if (H5Tget_class(type) != H5T_STRING || H5Tget_size(type) > max_text_attribute_bytes)
    fail(ExitCode::data, "{}: attribute {} is {}; it must be a short text", where, name,
         name_of_hdf5_type(type));
  if (H5Tis_variable_str(type) > 0) {
    char* text = nullptr;
    if (H5Aread(attribute, type, &text) < 0)
      fail(ExitCode::data, "{}: attribute {} cannot be read ({})", where, name, hdf5_reason());
    std::string copy = text == nullptr ? "" : text;
    H5free_memory(text);
    return copy;
  }
  std::string text(H5Tget_size(type), '\0');
  if (H5Aread(attribute, type, text.data()) < 0)
    fail(ExitCode::data, "{}: attribute {} cannot be read ({})", where, name, hdf5_reason());
  text.resize(std::min(text.size(), text.find('\0')));
  return text;
}

// A plain loop, which vectorises: only a broken file is searched for the place.
std::uint32_t largest_of(const std::vector<std::uint32_t>& tokens) {
  std::uint32_t largest = 0;
  for (const std::uint32_t token : tokens) largest = std::max(largest, token);
  return largest;
}

void read_attributes(hid_t owner, const std::string& where, TokenFileInfo& info) {
  const std::optional<std::int64_t> vocab_size = integer_attribute(owner, "vocab_size", where);
  if (!vocab_size) fail(ExitCode::data, "{}: has no attribute vocab_size; every token file needs it", where);
  if (*vocab_size < 1 || *vocab_size > std::numeric_limits<std::int32_t>::max())
    fail(ExitCode::data, "{}: attribute vocab_size is {}; it must be from 1 to 2^31 - 1", where, *vocab_size);
  info.vocab_size = *vocab_size;
  info.tokenizer = text_attribute(owner, "tokenizer", where);
  info.source = text_attribute(owner, "source", where);
  info.eos_token_id = integer_attribute(owner, "eos_token_id", where);
  if (info.eos_token_id && (*info.eos_token_id < 0 || *info.eos_token_id >= info.vocab_size))
    fail(ExitCode::data, "{}: attribute eos_token_id is {}, not below vocab_size {}", where,
         *info.eos_token_id, info.vocab_size);
}

}  // namespace

struct TokenFile::Handles {
  Hdf5Handle file, tokens, loss_mask, document_offsets;  // the last two are invalid where absent
};

TokenFile::TokenFile(const fs::path& path) : path_(path), handles_(std::make_unique<Handles>()) {
  start_hdf5();
  Handles& h = *handles_;
  h.file = open_file(path);
  h.tokens = open_dataset(h.file, path, "/tokens",
                          {H5T_STD_U16LE, H5T_STD_U16BE, H5T_STD_U32LE, H5T_STD_U32BE}, "uint16 or uint32");
  if (!h.tokens.valid())
    fail(ExitCode::data, "{}: has no dataset /tokens; make one with `flasheva data prepare`", path.string());
  info_.tokens = length_of(h.tokens);
  info_.stored_type = name_of_hdf5_type(Hdf5Handle(H5Dget_type(h.tokens)));
  const bool on_root = H5Aexists(h.tokens, "vocab_size") <= 0 && H5Aexists(h.file, "vocab_size") > 0;
  read_attributes(on_root ? h.file : h.tokens, path.string() + (on_root ? ":/" : ":/tokens"), info_);

  h.loss_mask = open_dataset(h.file, path, "/loss_mask", {H5T_STD_U8LE, H5T_STD_U8BE}, "uint8");
  info_.has_loss_mask = h.loss_mask.valid();
  if (info_.has_loss_mask && length_of(h.loss_mask) != info_.tokens)
    fail(ExitCode::data, "{}:/loss_mask: has {} entries for {} tokens; it must be as long as /tokens",
         path.string(), length_of(h.loss_mask), info_.tokens);

  h.document_offsets =
      open_dataset(h.file, path, "/document_offsets", {H5T_STD_U64LE, H5T_STD_U64BE}, "uint64");
  if (!h.document_offsets.valid()) return;
  info_.documents = length_of(h.document_offsets) - 1;
  if (info_.documents < 0)
    fail(ExitCode::data, "{}:/document_offsets: is empty; it must start with 0", path.string());
}

TokenFile::~TokenFile() = default;
TokenFile::TokenFile(TokenFile&&) noexcept = default;

void TokenFile::load(std::int64_t first, std::int64_t count) {
  FLASHEVA_CHECK(first >= 0 && count >= 0 && first <= info_.tokens - count);
  scratch_.resize(static_cast<std::size_t>(count));
  if (count == 0) return;
  read_range(handles_->tokens, first, count, H5T_NATIVE_UINT32, scratch_.data(), path_, "/tokens");
  const auto vocab_size = static_cast<std::uint32_t>(info_.vocab_size);
  if (largest_of(scratch_) < vocab_size) return;
  const auto bad =
      std::find_if(scratch_.begin(), scratch_.end(), [&](std::uint32_t id) { return id >= vocab_size; });
  fail(ExitCode::data, "{}:/tokens: token {} at place {} is not below vocab_size {}", path_.string(), *bad,
       first + (bad - scratch_.begin()), info_.vocab_size);
}

void TokenFile::read(std::int64_t first, std::span<std::int32_t> inputs, std::span<std::int32_t> targets,
                     std::span<std::uint8_t> mask) {
  FLASHEVA_CHECK(targets.size() == inputs.size() && mask.size() == inputs.size());
  const auto length = static_cast<std::int64_t>(inputs.size());
  load(first, length + 1);
  std::copy(scratch_.begin(), scratch_.end() - 1, inputs.begin());
  std::copy(scratch_.begin() + 1, scratch_.end(), targets.begin());
  if (!info_.has_loss_mask || mask.empty()) {
    std::fill(mask.begin(), mask.end(), std::uint8_t{1});
    return;
  }
  read_range(handles_->loss_mask, first + 1, length, H5T_NATIVE_UINT8, mask.data(), path_, "/loss_mask");
  for (std::uint8_t& counts : mask) counts = counts != 0;
}

void TokenFile::read_tokens(std::int64_t first, std::span<std::int32_t> tokens) {
  load(first, static_cast<std::int64_t>(tokens.size()));
  std::copy(scratch_.begin(), scratch_.end(), tokens.begin());
}

void TokenFile::for_offsets(const std::function<void(std::span<const std::uint64_t>)>& use) const {
  if (!handles_->document_offsets.valid()) return;
  const std::string where = path_.string() + ":/document_offsets";
  const std::int64_t count = info_.documents + 1;
  std::vector<std::uint64_t> block{0};  // behind the last one of the block before
  std::uint64_t front = 0;
  for (std::int64_t first = 0; first < count; first += block_elements) {
    const std::int64_t size = std::min(block_elements, count - first);
    block.front() = block.back();
    block.resize(static_cast<std::size_t>(size) + 1);
    read_range(handles_->document_offsets, first, size, H5T_NATIVE_UINT64, block.data() + 1, path_,
               "/document_offsets");
    if (first == 0) front = block[1];
    const auto falls = std::adjacent_find(block.begin(), block.end(), std::greater<>());
    if (falls != block.end())
      fail(ExitCode::data, "{}: falls from {} to {} at entry {}; it must ascend", where, falls[0], falls[1],
           first + (falls - block.begin()));
    use(std::span(block).subspan(1));
  }
  if (front != 0 || block.back() != static_cast<std::uint64_t>(info_.tokens))
    fail(ExitCode::data, "{}: runs from {} to {}; it must run from 0 to the number of tokens, {}", where,
         front, block.back(), info_.tokens);
}

std::vector<std::uint64_t> TokenFile::document_offsets() const {
  std::vector<std::uint64_t> offsets;
  for_offsets([&](std::span<const std::uint64_t> block) {
    offsets.insert(offsets.end(), block.begin(), block.end());
  });
  return offsets;
}

TokenFileStatistics TokenFile::verify() {
  for_offsets([](std::span<const std::uint64_t>) {});
  TokenFileStatistics statistics;
  std::vector<std::uint8_t> mask;
  for (std::int64_t first = 0; first < info_.tokens; first += block_elements) {
    const std::int64_t count = std::min(block_elements, info_.tokens - first);
    load(first, count);
    statistics.largest_token = std::max<std::int64_t>(statistics.largest_token, largest_of(scratch_));
    mask.assign(static_cast<std::size_t>(count), 1);
    if (info_.has_loss_mask)
      read_range(handles_->loss_mask, first, count, H5T_NATIVE_UINT8, mask.data(), path_, "/loss_mask");
    statistics.counted_targets += count - std::count(mask.begin(), mask.end(), std::uint8_t{0});
  }
  return statistics;
}

}  // namespace flasheva
