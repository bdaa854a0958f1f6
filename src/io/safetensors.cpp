#include "src/io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>

#include "src/core/error.h"
#include "src/core/text.h"

namespace flasheva {

namespace {

constexpr std::size_t length_field_bytes = 8;
constexpr std::uint64_t max_header_bytes = 100'000'000;
constexpr const char* metadata_key = "__metadata__";

struct StoredTypeInfo {
  const char* name;
  std::size_t bytes;
};
constexpr StoredTypeInfo stored_types[] = {  // in the order of StoredType
    {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
    {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U8", 1},   {"BOOL", 1}};

std::optional<StoredType> parse_stored_type(const std::string& name) {
  for (std::size_t i = 0; i < std::size(stored_types); ++i)
    if (name == stored_types[i].name) return static_cast<StoredType>(i);
  return std::nullopt;
}

// Bytes [begin, end) of the data section.
struct ByteRange {
  std::uint64_t begin, end;
  std::string tensor;
};

// Takes the header's JSON event by event: any value where the format has none is refused where it starts, so
// nesting never goes deeper than the format's three levels.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::string& where) : where_(where) {}

  SafetensorsView view;  // tensors without their data
  std::vector<ByteRange> ranges;

  bool start_object(std::size_t) override {
    if (place_ == Place::outside) return enter(Place::file);
    if (place_ != Place::file) return refuse("an object");
    entry_ = Entry();
    fields_.clear();
    return enter(name_ == metadata_key ? Place::metadata : Place::tensor);
  }

  bool key(std::string& key) override {
    if (place_ == Place::file) {
      name_ = key;
      if (!names_.insert(key).second)
        fail(ExitCode::data, "{}: duplicate key \"{}\"", where_, printable(key));
      return true;
    }
    field_ = key;
    if (!fields_.insert(key).second) fail(ExitCode::data, "{}: duplicate key \"{}\"", item(), printable(key));
    if (place_ == Place::tensor && key != "dtype" && key != "shape" && key != "data_offsets")
      fail(ExitCode::data, "{}: unknown key \"{}\"; dtype, shape and data_offsets are known", item(),
           printable(key));
    return true;
  }

  bool end_object() override {
    if (place_ == Place::file) return enter(Place::outside);
    if (place_ == Place::tensor) finish_tensor();
    return enter(Place::file);
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::tensor && field_ == "shape") return enter(Place::shape);
    if (place_ == Place::tensor && field_ == "data_offsets") return enter(Place::offsets);
    return refuse("an array");
  }

  bool end_array() override { return enter(Place::tensor); }

  bool number_unsigned(std::uint64_t value) override {
    if (place_ == Place::offsets) {
      entry_.offsets.push_back(value);
      return true;
    }
    if (place_ != Place::shape) return refuse("a number");
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      return refuse("a number beyond 2^63");
    entry_.shape.push_back(static_cast<std::int64_t>(value));
    return true;
  }

  bool string(std::string& value) override {
    if (place_ == Place::metadata) {
      view.metadata[field_] = value;
      return true;
    }
    if (place_ != Place::tensor || field_ != "dtype") return refuse("text");
    const std::optional<StoredType> type = parse_stored_type(value);
    if (!type) {
      std::string known;
      for (const StoredTypeInfo& info : stored_types)
        known += std::string(known.empty() ? "" : ", ") + info.name;
      fail(ExitCode::data, "{}: unknown dtype \"{}\"; known are {}", item(), printable(value), known);
    }
    entry_.dtype = *type;
    return true;
  }

  bool null() override { return refuse("null"); }
  bool boolean(bool) override { return refuse("a truth value"); }
  bool number_integer(std::int64_t) override { return refuse("a negative number"); }
  bool number_float(double, const std::string&) override {
    return refuse("a number that is no 64-bit integer");
  }
  bool binary(nlohmann::json::binary_t&) override { return refuse("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    fail(ExitCode::data, "{}: the header is not valid JSON at its byte {}", where_, position);
  }

 private:
  enum class Place { outside, file, metadata, tensor, shape, offsets };
  struct Entry {
    StoredType dtype = StoredType::F32;
    std::vector<std::int64_t> shape;
    std::vector<std::uint64_t> offsets;
  };

  bool enter(Place place) {
    place_ = place;
    return true;
  }

  std::string item() const {
    return name_ == metadata_key ? where_ + ": " + metadata_key : where_ + ": tensor " + printable(name_);
  }

  // Names the value that the format wants at this place.
  [[noreturn]] bool refuse(const char* found) const {
    if (place_ == Place::metadata)
      fail(ExitCode::data, "{}: \"{}\" must be text, found {}", item(), printable(field_), found);
    const char* expected = name_ == metadata_key   ? "must be an object of texts"
                           : place_ == Place::file ? "must be an object of dtype, shape and data_offsets"
                           : field_ == "dtype"     ? "dtype must be text"
                           : field_ == "shape"     ? "shape must be an array of non-negative integers"
                                               : "data_offsets must be an array of two non-negative integers";
    fail(ExitCode::data, "{}: {}, found {}", item(), expected, found);
  }

  void finish_tensor() {
    for (const char* field : {"dtype", "shape", "data_offsets"})
      if (fields_.count(field) == 0) fail(ExitCode::data, "{}: {} is missing", item(), field);
    if (entry_.offsets.size() != 2)
      fail(ExitCode::data, "{}: data_offsets must be two integers, found {}", item(), entry_.offsets.size());
    const std::uint64_t begin = entry_.offsets[0], end = entry_.offsets[1];
    if (begin > end) fail(ExitCode::data, "{}: data_offsets [{}, {}] are not in order", item(), begin, end);

    auto bytes = static_cast<std::int64_t>(size_in_bytes(entry_.dtype));
    for (const std::int64_t dim : entry_.shape)
      if (__builtin_mul_overflow(bytes, dim, &bytes))
        fail(ExitCode::data, "{}: the size of its shape overflows 64 bits", item());
    if (static_cast<std::uint64_t>(bytes) != end - begin)
      fail(ExitCode::data, "{}: {} of this shape takes {} bytes, its data_offsets [{}, {}] hold {}", item(),
           name_of(entry_.dtype), bytes, begin, end, end - begin);

    ranges.push_back({begin, end, name_});
    view.tensors[name_] = StoredTensor{entry_.dtype, std::move(entry_.shape), {}};
  }

  const std::string& where_;
  Place place_ = Place::outside;
  std::string name_, field_;              // the last keys seen: of the file, and of the object in it
  std::set<std::string> names_, fields_;  // all keys of the file, and of the object in it
  Entry entry_;
};

std::string_view header_text(std::span<const std::byte> bytes, const std::string& where) {
  if (bytes.size() < length_field_bytes)
    fail(ExitCode::data, "{}: {} bytes are too few for a safetensors file; it is truncated", where,
         bytes.size());
  constexpr std::string_view pointer_start = "version https://git-lfs.github.com/";
  if (std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()).starts_with(pointer_start))
    fail(ExitCode::data, "{}: a pointer of Git LFS in place of the file; fetch the file with `git lfs pull`",
         where);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), length_field_bytes);
  if (length > max_header_bytes)
    fail(ExitCode::data, "{}: a header of {} bytes, at most {} are allowed; is this a safetensors file?",
         where, length, max_header_bytes);
  if (length > bytes.size() - length_field_bytes)
    fail(ExitCode::data, "{}: a header of {} bytes in a file of {}; it is truncated", where, length,
         bytes.size());

  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + length_field_bytes, length);
  if (!text.starts_with('{')) fail(ExitCode::data, "{}: the header does not start with '{{'", where);
  if (!is_valid_utf8(text)) fail(ExitCode::data, "{}: the header is not valid UTF-8", where);
  // The JSON parser would take one for the end of the text.
  if (text.find('\0') != text.npos) fail(ExitCode::data, "{}: the header contains a zero byte", where);
  return text;
}

// The ranges, in the order of the data, must follow one another from its first byte to its last.
void check_tiling(std::vector<ByteRange>& ranges, std::uint64_t data_bytes, const std::string& where) {
  std::sort(ranges.begin(), ranges.end(), [](const ByteRange& a, const ByteRange& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  std::uint64_t covered = 0;
  for (const ByteRange& range : ranges) {
    const std::string item = where + ": tensor " + printable(range.tensor);
    if (range.end > data_bytes)
      fail(ExitCode::data,
           "{}: its data_offsets [{}, {}] end beyond the {} bytes of data; the file is truncated", item,
           range.begin, range.end, data_bytes);
    if (range.begin < covered)
      fail(ExitCode::data, "{}: its data_offsets [{}, {}] overlap another tensor's, which end at {}", item,
           range.begin, range.end, covered);
    if (range.begin > covered)
      fail(ExitCode::data, "{}: its data_offsets [{}, {}] leave a gap after byte {}", item, range.begin,
           range.end, covered);
    covered = range.end;
  }
  if (covered != data_bytes)
    fail(ExitCode::data, "{}: {} bytes after the last tensor's data belong to no tensor", where,
         data_bytes - covered);
}

}  // namespace

const char* name_of(StoredType type) { return stored_types[static_cast<std::size_t>(type)].name; }

std::size_t size_in_bytes(StoredType type) { return stored_types[static_cast<std::size_t>(type)].bytes; }

std::int64_t StoredTensor::size() const {
  std::int64_t product = 1;
  for (const std::int64_t dim : shape) product *= dim;
  return product;
}

SafetensorsView parse_safetensors(std::span<const std::byte> bytes, const std::string& where) {
  const std::string_view text = header_text(bytes, where);
  HeaderReader header(where);
  nlohmann::json::sax_parse(text.begin(), text.end(), &header);

  const std::span<const std::byte> data = bytes.subspan(length_field_bytes + text.size());
  check_tiling(header.ranges, data.size(), where);
  for (const ByteRange& range : header.ranges)
    header.view.tensors[range.tensor].data = data.subspan(range.begin, range.end - range.begin);
  return std::move(header.view);
}

}  // namespace flasheva
