// encode_lines FOLDER [PIECE_BYTES]: for tests/python/tokenizer_parity.py. Each line of standard input is a
// text's bytes in hexadecimal; each line of output has the ids of the folder's tokenizer, a colon, and the
// bytes that they decode to. With PIECE_BYTES, texts are encoded in pieces of about that size.
#include <charconv>
#include <exception>
#include <iostream>
#include <string>

#include "src/io/tokenizer.h"

namespace {

std::string from_hex(const std::string& line) {
  std::string text(line.size() / 2, '\0');
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned char byte = 0;
    std::from_chars(line.data() + 2 * i, line.data() + 2 * i + 2, byte, 16);
    text[i] = static_cast<char>(byte);
  }
  return text;
}

std::string to_hex(const std::string& text) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (const char c : text) {
    out += digits[static_cast<unsigned char>(c) >> 4];
    out += digits[static_cast<unsigned char>(c) & 15];
  }
  return out;
}

void encode_lines(const flasheva::Tokenizer& tokenizer, std::size_t piece_bytes) {
  for (std::string line; std::getline(std::cin, line);) {
    const std::string text = from_hex(line);
    std::vector<std::int32_t> ids;
    for (std::string_view rest = text; !rest.empty();) {
      const std::string_view piece = rest.substr(0, tokenizer.piece(rest, piece_bytes));
      const std::vector<std::int32_t> more = tokenizer.encode(piece);
      ids.insert(ids.end(), more.begin(), more.end());
      rest.remove_prefix(piece.size());
    }
    std::string out;
    for (const std::int32_t id : ids) out += std::to_string(id) + " ";
    std::cout << out << ":" << to_hex(tokenizer.decode(ids)) << "\n";
  }
}

}  // namespace

int main(int count, char** arguments) {
  try {
    if (count < 2) throw std::runtime_error("encode_lines FOLDER [PIECE_BYTES]");
    encode_lines(*flasheva::make_tokenizer(arguments[1]),
                 count > 2 ? std::stoul(arguments[2]) : std::string::npos);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "encode_lines: " << error.what() << "\n";
    return 1;
  }
}
