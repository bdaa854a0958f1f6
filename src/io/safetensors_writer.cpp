#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "kernels/check.h"
#include "src/io/safetensors.h"

namespace flasheva {

namespace {

// The length field and the header, padded with spaces to 8 bytes.
std::string header_of(const std::vector<const std::pair<std::string, StoredTensor>*>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t offset_bytes = 0;
  for (const auto* named : tensors) {
    const auto& [name, tensor] = *named;
    FLASHEVA_CHECK(!header.contains(name));
    FLASHEVA_CHECK(tensor.data.size() ==
                   static_cast<std::size_t>(tensor.size()) * size_in_bytes(tensor.dtype));
    const std::size_t end = offset_bytes + tensor.data.size();
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
    case DType::f64:
      return StoredType::F64;
    case DType::i32:
      return StoredType::I32;
    case DType::u8:
      return StoredType::U8;
  }
  throw std::logic_error("unknown DType");
}

}  // namespace

void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, StoredTensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const std::pair<std::string, StoredTensor>*> ordered;
  for (const auto& named : tensors) ordered.push_back(&named);
  std::stable_sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) {
    return size_in_bytes(a->second.dtype) > size_in_bytes(b->second.dtype);
  });

  const std::string header = header_of(ordered, metadata);
  FileWriter file(path);
  file.write(header);
  for (const auto* named : ordered) file.write(named->second.data.data(), named->second.data.size());
  file.close();
}

StoredTensor stored(const Tensor& tensor) {
  FLASHEVA_CHECK(tensor && tensor.device == Device::cpu);
  StoredTensor out{
      stored_type_of(tensor.dtype), {}, {static_cast<const std::byte*>(tensor.data), tensor.bytes()}};
  for (int i = 0; i < tensor.shape.rank(); ++i) out.shape.push_back(tensor.dim(i));
  return out;
}

}  // namespace flasheva
