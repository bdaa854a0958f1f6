// What the tests of `data prepare` write, plain or compressed, and read back.
#pragma once

#include <zlib.h>
#include <zstd.h>

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "src/io/token_file.h"

namespace flasheva {

struct Prepared {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint64_t> offsets;
  bool operator==(const Prepared&) const = default;
};

inline Prepared read_prepared(const std::filesystem::path& path) {
  TokenFile file(path);
  file.verify();
  Prepared out{std::vector<std::int32_t>(static_cast<std::size_t>(file.info().tokens)),
               file.document_offsets()};
  file.read_tokens(0, out.tokens);
  return out;
}

// One gzip member.
inline std::string gzip(std::string_view text) {
  z_stream stream{};
  if (deflateInit2(&stream, 1, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
    throw std::runtime_error("deflateInit2 failed");
  std::string out(deflateBound(&stream, text.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

// One Zstandard frame.
inline std::string zstd(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 1));
  return out;
}

// Lines {"text": ..., "id": ...} of different lengths, some without text, some beyond ASCII.
inline std::string some_json_lines(std::size_t bytes, unsigned seed = 1) {
  std::string lines;
  for (unsigned state = seed, id = 0; lines.size() < bytes; ++id) {
    state = state * 1664525u + 1013904223u;
    std::string text(state >> 23, static_cast<char>('a' + id % 26));
    if (id % 7 == 3) text += "\\n \\u00e9 \xe2\x82\xac";
    if (id % 50 == 9) text.clear();
    lines += "{\"id\": " + std::to_string(id) + ", \"text\": \"" + text + "\"}\n";
  }
  return lines;
}

}  // namespace flasheva
