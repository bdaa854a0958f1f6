// The tokenizer of bytes: id = byte value, vocabulary 256.
#pragma once

#include <memory>

#include "src/io/tokenizer.h"

namespace flasheva {

std::unique_ptr<Tokenizer> make_bytes_tokenizer();

}  // namespace flasheva
