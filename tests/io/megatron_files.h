// Megatron data sets written byte by byte, as the format's description says: independent of the reader.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace flasheva {

template <class T>
std::string little_endian(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

template <class T, class Values>
std::string array_of(const Values& values) {
  std::string bytes;
  for (const auto value : values) bytes += little_endian(static_cast<T>(value));
  return bytes;
}

// What an .idx holds; a test breaks one field of it.
struct IdxFields {
  std::string magic{"MMIDIDX\0\0", 9};
  std::uint64_t version = 1;
  std::uint8_t type = 8;
  std::uint64_t sequences = 0, entries = 0;
  std::vector<std::int64_t> sizes, pointers, documents;
  std::string tail;

  std::string bytes() const {
    return magic + little_endian(version) + little_endian(type) + little_endian(sequences) +
           little_endian(entries) + array_of<std::int32_t>(sizes) + array_of<std::int64_t>(pointers) +
           array_of<std::int64_t>(documents) + tail;
  }
};

// Sequences of these sizes; `documents`: the first sequence of each, and their number.
inline IdxFields idx_of(std::uint8_t type, std::size_t width, const std::vector<std::int64_t>& sizes,
                        const std::vector<std::int64_t>& documents) {
  IdxFields idx;
  idx.type = type;
  idx.sizes = sizes;
  idx.documents = documents;
  std::int64_t pointer = 0;
  for (const std::int64_t size : sizes) {
    idx.pointers.push_back(pointer);
    pointer += size * static_cast<std::int64_t>(width);
  }
  idx.sequences = sizes.size();
  idx.entries = documents.size();
  return idx;
}

}  // namespace flasheva
