// Safetensors files as text, and stored tensors as plain values.
#pragma once

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "src/io/safetensors.h"

namespace flasheva {

inline std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

// The first eight bytes of a file: the header's length, little-endian.
inline std::string length_field(std::uint64_t length) {
  std::string field(8, '\0');
  std::memcpy(field.data(), &length, 8);
  return field;
}

// A file of this header and so many bytes of data.
inline std::string file_of(const std::string& header, std::size_t data_bytes = 0) {
  return length_field(header.size()) + header + std::string(data_bytes, '\1');
}

inline std::string repeated(const std::string& text, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += text;
  return out;
}

template <class T>
StoredTensor stored_vector(const std::vector<T>& values, StoredType type) {
  return {type, {static_cast<std::int64_t>(values.size())}, std::as_bytes(std::span(values))};
}

inline std::vector<double> loaded(const StoredTensor& tensor) {
  std::vector<double> out(static_cast<std::size_t>(tensor.size()));
  load_tensor(view_of(out.data(), Shape{tensor.size()}), {tensor.dtype, {tensor.size()}, tensor.data}, "w");
  return out;
}

}  // namespace flasheva
