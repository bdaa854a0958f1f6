#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "kernels/check.h"
#include "src/io/safetensors.h"

namespace flasheva {

namespace {

std::size_t bytes_of(const StoredTensor& tensor) {
  return static_cast<std::size_t>(tensor.size()) * size_in_bytes(tensor.dtype);
}

// The length field and the header, padded with spaces to 8 bytes.
std::string header_of(const std::vector<const NamedTensors::value_type*>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t offset_bytes = 0;
  for (const auto* named : tensors) {
    const auto& [name, tensor] = *named;
    FLASHEVA_CHECK(!header.contains(name));
    const std::size_t end = offset_bytes + bytes_of(tensor);
    header[name] = {
        {"dtype", name_of(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {offset_bytes, end}}};
    offset_bytes = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text;
}

StoredType stored_type_of(DType type) {
  switch (type) {
    case DType::f32:
      return StoredType::F32;
    case DType::bf16:
      return StoredType::BF16;
    case DType::f16:
      return StoredType::F16;
    case DType::f64:
      return StoredType::F64;
    case DType::i32:
      return StoredType::I32;
    case DType::u8:
      return StoredType::U8;
  }
  throw std::logic_error("unknown DType");
}

StoredTensor without_data(const Tensor& tensor) {
  StoredTensor out;
  out.dtype = stored_type_of(tensor.dtype);
  for (int i = 0; i < tensor.shape.rank(); ++i) out.shape.push_back(tensor.dim(i));
  return out;
}

std::span<const std::byte> data_of(const Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.data), tensor.bytes()};
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const NamedTensors::value_type*> ordered;
  for (const auto& named : tensors) ordered.push_back(&named);
  std::stable_sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) {
    return size_in_bytes(a->second.dtype) > size_in_bytes(b->second.dtype);
  });

  const std::string header = header_of(ordered, metadata);
  FileWriter file(path);
  file.write(header);
  for (const auto* named : ordered) {
    const StoredTensor& tensor = named->second;
    const std::span<const std::byte> data = tensor.fetch ? tensor.fetch() : tensor.data;
    FLASHEVA_CHECK(data.size() == bytes_of(tensor));
    file.write(data.data(), data.size());
  }
  file.close();
}

StoredTensor stored(const Tensor& tensor) {
  FLASHEVA_CHECK(tensor && tensor.device == Device::cpu);
  StoredTensor out = without_data(tensor);
  out.data = data_of(tensor);
  return out;
}

StoredTensor stored_from(const Tensor& tensor, std::function<Tensor(const Tensor&)> read) {
  StoredTensor out = without_data(tensor);
  out.fetch = [tensor, read = std::move(read)] { return data_of(read(tensor)); };
  return out;
}

}  // namespace flasheva
