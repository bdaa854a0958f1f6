// Stored tensors as plain values.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "src/io/safetensors.h"

namespace flasheva {

inline std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

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
