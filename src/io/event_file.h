// TensorBoard's event files. A file is a row of records, little-endian:
//
//     length (8 bytes), masked CRC of those (4), an Event message (length bytes), masked CRC of it (4)
//     masked(crc) = (crc >> 15 | crc << 17) + 0xa282ead8, crc the CRC32C
//
// Events are protobuf messages: event.proto and summary.proto of tensorboard/compat/proto. The few fields
// that are needed are encoded here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "src/core/file.h"

namespace flasheva {

struct Scalar {
  std::string tag;
  float value;
};

// When an event was: seconds since 1970, and the step that it is plotted at.
struct EventTime {
  double seconds = 0;
  std::int64_t step = 0;
};

// Every event is one write. Error{disk} where the file cannot be written.
class EventFile {
 public:
  // Creates the file.
  EventFile(const std::filesystem::path& path, double seconds);

  void write_scalars(EventTime time, const std::vector<Scalar>& scalars);
  void write_text(EventTime time, std::string_view tag, std::string_view markdown);
  // Readers drop what they have read of `time.step` and later steps.
  void begin_session(EventTime time);

 private:
  void write_record(std::string_view event);

  FileWriter file_;
};

}  // namespace flasheva
