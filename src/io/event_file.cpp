#include "src/io/event_file.h"

#include <isa-l/crc.h>

#include <bit>
#include <cstring>

namespace flasheva {

static_assert(std::endian::native == std::endian::little);

namespace {

// --- protobuf: fields are (number, wire type) and a value --------------------------------------------------

class Message {
 public:
  void add_integer(int field, std::uint64_t value) {
    add_varint(static_cast<std::uint64_t>(field) << 3);
    add_varint(value);
  }
  void add_double(int field, double value) { add_fixed(field, 1, value); }
  void add_float(int field, float value) { add_fixed(field, 5, value); }
  void add_bytes(int field, std::string_view value) {
    add_varint(static_cast<std::uint64_t>(field) << 3 | 2);
    add_varint(value.size());
    bytes_ += value;
  }
  void add_message(int field, const Message& value) { add_bytes(field, value.bytes_); }

  const std::string& bytes() const { return bytes_; }

 private:
  void add_varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }
  template <class T>
  void add_fixed(int field, std::uint64_t wire_type, T value) {
    add_varint(static_cast<std::uint64_t>(field) << 3 | wire_type);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }

  std::string bytes_;
};

Message event_at(EventTime time) {
  Message event;
  event.add_double(1, time.seconds);
  event.add_integer(2, static_cast<std::uint64_t>(time.step));
  return event;
}

// A tensor without dimensions that holds one string.
Message string_tensor(std::string_view text) {
  constexpr std::uint64_t dt_string = 7;
  Message tensor;
  tensor.add_integer(1, dt_string);
  tensor.add_message(2, Message());
  tensor.add_bytes(8, text);
  return tensor;
}

// What shows a tensor as text.
Message text_metadata() {
  constexpr std::uint64_t data_class_tensor = 2;
  Message plugin, metadata;
  plugin.add_bytes(1, "text");
  metadata.add_message(1, plugin);
  metadata.add_integer(4, data_class_tensor);
  return metadata;
}

// --- records -------------------------------------------------------------------------------------------

std::uint32_t masked_crc(std::string_view bytes) {
  auto* const data = reinterpret_cast<unsigned char*>(const_cast<char*>(bytes.data()));
  const std::uint32_t crc = ~crc32_iscsi(data, static_cast<int>(bytes.size()), ~0u);
  return std::rotr(crc, 15) + 0xa282ead8u;
}

template <class T>
std::string bytes_of(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& path, double seconds) : file_(path) {
  Message event;
  event.add_double(1, seconds);
  event.add_bytes(3, "brain.Event:2");
  write_record(event.bytes());
}

void EventFile::write_scalars(EventTime time, const std::vector<Scalar>& scalars) {
  Message summary;
  for (const Scalar& scalar : scalars) {
    Message value;
    value.add_bytes(1, scalar.tag);
    value.add_float(2, scalar.value);
    summary.add_message(1, value);
  }
  Message event = event_at(time);
  event.add_message(5, summary);
  write_record(event.bytes());
}

void EventFile::write_text(EventTime time, std::string_view tag, std::string_view markdown) {
  Message value, summary;
  value.add_bytes(1, tag);
  value.add_message(8, string_tensor(markdown));
  value.add_message(9, text_metadata());
  summary.add_message(1, value);
  Message event = event_at(time);
  event.add_message(5, summary);
  write_record(event.bytes());
}

void EventFile::begin_session(EventTime time) {
  constexpr std::uint64_t start = 1;
  Message session;
  session.add_integer(1, start);
  Message event = event_at(time);
  event.add_message(7, session);
  write_record(event.bytes());
}

void EventFile::write_record(std::string_view event) {
  std::string record = bytes_of(static_cast<std::uint64_t>(event.size()));
  record += bytes_of(masked_crc(record));
  record += event;
  record += bytes_of(masked_crc(event));
  file_.write(record);
}

}  // namespace flasheva
