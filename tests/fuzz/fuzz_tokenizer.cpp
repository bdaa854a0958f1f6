// Any bytes given as a tokenizer.json and, after a zero byte, a text: an Error of one line, or a tokenizer
// whose ids are below its vocab_size, the same for the text in pieces as for the whole, and decode to as many
// bytes as it says.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "src/core/error.h"
#include "src/io/tokenizer.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void encode_and_decode(const flasheva::Tokenizer& tokenizer, std::string_view text) {
  const std::vector<std::int32_t> ids = tokenizer.encode(text);
  std::int64_t bytes = 0;
  for (const std::int32_t id : ids) {
    require(id >= 0 && id < tokenizer.vocab_size());
    bytes += tokenizer.bytes_of(id);
  }
  const std::string decoded = tokenizer.decode(ids);
  require(bytes == static_cast<std::int64_t>(decoded.size()));
  if (tokenizer.name() == "bytes") require(decoded == text);

  std::vector<std::int32_t> ids_of_pieces;
  while (!text.empty()) {
    const std::size_t size = tokenizer.piece(text, 5);
    require(size > 0 && size <= text.size());
    const std::vector<std::int32_t> more = tokenizer.encode(text.substr(0, size));
    ids_of_pieces.insert(ids_of_pieces.end(), more.begin(), more.end());
    text.remove_prefix(size);
  }
  require(ids_of_pieces == ids);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t zero = input.find('\0');
  const std::string_view json = input.substr(0, zero);
  const std::string_view text = zero == std::string_view::npos ? json : input.substr(zero + 1);
  try {
    encode_and_decode(*flasheva::parse_tokenizer_json(json, "input"), text);
  } catch (const flasheva::Error& error) {
    require(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
  return 0;
}
