// Any bytes given as a tokenizer.json: a tokenizer that gives back what it encoded, or an Error of one line.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "src/core/error.h"
#include "src/io/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = flasheva::parse_tokenizer_json(text, "input");
    if (tokenizer->decode(tokenizer->encode(text)) != text) std::abort();
  } catch (const flasheva::Error& error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
  }
  return 0;
}
