// The safetensors format: 8 bytes little-endian header length N, N bytes of JSON
//     {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, .., "__metadata__": {text:
//     text}}
// then the data. Files are untrusted: everything is checked before a byte of data is used (header cap of 100
// MB, UTF-8, no duplicate key, known dtype, shape x dtype = extent without overflow, extents tile the data
// exactly: no gap, no overlap, nothing left over). Violations are Error{data}: "FILE: tensor NAME: what is
// wrong".
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/tensor.h"
#include "src/core/file.h"

namespace flasheva {

enum class StoredType : std::uint8_t { F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL };

const char* name_of(StoredType type);
std::size_t size_in_bytes(StoredType type);

struct StoredTensor {
  StoredType dtype = StoredType::F32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte>
      data;  // little-endian, row-major; points into the file's map or the caller's memory
  // Of a tensor to write that is not in host memory, in place of `data`: copies it there. What it returns
  // lasts until another tensor is fetched.
  std::function<std::span<const std::byte>()> fetch = {};

  std::int64_t size() const;  // elements
};

// Tensors of a file to write, in its order.
using NamedTensors = std::vector<std::pair<std::string, StoredTensor>>;

// The header and extents of safetensors `bytes`; names in messages are prefixed with `where`. The fuzz
// target.
struct SafetensorsView {
  std::map<std::string, StoredTensor> tensors;
  std::map<std::string, std::string> metadata;
};
SafetensorsView parse_safetensors(std::span<const std::byte> bytes, const std::string& where);

// A folder's or file's tensors, mapped: one file, `model.safetensors`, or else the shards that
// `model.safetensors.index.json` names (each tensor in the shard the index says, none twice, none missing).
class SafetensorsReader {
 public:
  // `path`: a .safetensors file, or a folder.
  explicit SafetensorsReader(const std::filesystem::path& path);

  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }

  bool contains(const std::string& name) const { return tensors_.count(name) != 0; }
  // Error{data} naming the file and the tensor where it is missing.
  const StoredTensor& at(const std::string& name) const;

 private:
  SafetensorsView add_file(const std::filesystem::path& file);
  void add_shards(const std::filesystem::path& index);

  std::filesystem::path path_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::map<std::string, StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Writes tensors in the given order, but those of wider types first: with the header padded with spaces to 8
// bytes, every element is aligned in the file. Flushed to the device.
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// The stored form of a host tensor (no copy).
StoredTensor stored(const Tensor& tensor);
// Of one of a device: `read` gives it in host memory once it is written.
StoredTensor stored_from(const Tensor& tensor, std::function<Tensor(const Tensor&)> read);

// out = stored elements converted to out's type (any floating type from any floating type; int32
// from I32 and I64, checked). Shapes must agree: Error{data} prefixed with `where` prints both.
void load_tensor(Tensor out, const StoredTensor& stored, const std::string& where);

// `count` elements of `in` (F64, F32, F16 or BF16) converted to `out_type` (F32, F16 or BF16), rounding to
// nearest even.
std::vector<std::byte> convert_elements(const StoredTensor& in, StoredType out_type);

}  // namespace flasheva
