// Reads TensorBoard's event files back, sharing no code with the writer: the CRC bit by bit, protobuf field
// by field. Whatever is not as it should be throws.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/core/file.h"

namespace flasheva {

// CRC32C: polynomial 0x1EDC6F41, bits reflected.
inline std::uint32_t crc32c_of(std::string_view bytes) {
  std::uint32_t crc = 0xffffffff;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
  }
  return ~crc;
}

// The fields of a protobuf message by number: integers and the raw bytes of everything else.
struct ProtobufField {
  std::uint64_t integer = 0;
  std::string bytes;
};
using ProtobufFields = std::multimap<int, ProtobufField>;

inline ProtobufFields parse_protobuf(std::string_view text) {
  ProtobufFields fields;
  const auto take = [&](std::size_t count) {
    if (count > text.size()) throw std::runtime_error("protobuf: cut off");
    const std::string_view taken = text.substr(0, count);
    text.remove_prefix(count);
    return std::string(taken);
  };
  const auto varint = [&] {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw std::runtime_error("protobuf: endless integer");
  };
  while (!text.empty()) {
    const std::uint64_t key = varint();
    ProtobufField field;
    if (key % 8 == 0)
      field.integer = varint();
    else if (key % 8 == 1)
      field.bytes = take(8);
    else if (key % 8 == 2)
      field.bytes = take(varint());
    else if (key % 8 == 5)
      field.bytes = take(4);
    else
      throw std::runtime_error("protobuf: unknown wire type");
    fields.emplace(static_cast<int>(key / 8), field);
  }
  return fields;
}

template <class T>
T number_in(std::string_view bytes) {
  if (bytes.size() != sizeof(T)) throw std::runtime_error("a number of another size");
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

struct ReadEvent {
  double seconds = 0;
  std::int64_t step = 0;
  std::string file_version;
  int session_status = 0;  // 1: start
  std::map<std::string, float> scalars;
  std::map<std::string, std::string> texts;
};

inline void read_summary(std::string_view bytes, ReadEvent& event) {
  for (const auto& [number, value] : parse_protobuf(bytes)) {
    const ProtobufFields fields = parse_protobuf(value.bytes);
    const std::string tag = fields.find(1)->second.bytes;
    if (const auto simple = fields.find(2); simple != fields.end())
      event.scalars[tag] = number_in<float>(simple->second.bytes);
    if (const auto tensor = fields.find(8); tensor != fields.end())
      event.texts[tag] = parse_protobuf(tensor->second.bytes).find(8)->second.bytes;
  }
}

inline ReadEvent read_event(std::string_view bytes) {
  ReadEvent event;
  for (const auto& [number, field] : parse_protobuf(bytes)) {
    if (number == 1) event.seconds = number_in<double>(field.bytes);
    if (number == 2) event.step = static_cast<std::int64_t>(field.integer);
    if (number == 3) event.file_version = field.bytes;
    if (number == 5) read_summary(field.bytes, event);
    if (number == 7)
      event.session_status = static_cast<int>(parse_protobuf(field.bytes).find(1)->second.integer);
  }
  return event;
}

inline std::vector<ReadEvent> read_event_file(const std::filesystem::path& path) {
  const std::string content = read_text_file(path);
  std::string_view rest = content;
  const auto take_checked = [&](std::size_t count) {
    if (count > rest.size() || rest.size() - count < 4) throw std::runtime_error("record: cut off");
    const std::string_view data = rest.substr(0, count);
    const std::uint32_t crc = crc32c_of(data), masked = ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
    if (number_in<std::uint32_t>(rest.substr(count, 4)) != masked) throw std::runtime_error("record: CRC");
    rest.remove_prefix(count + 4);
    return data;
  };
  std::vector<ReadEvent> events;
  while (!rest.empty()) {
    const auto length = number_in<std::uint64_t>(take_checked(8));
    events.push_back(read_event(take_checked(length)));
  }
  return events;
}

}  // namespace flasheva
