// Text files that the binary carries with it (cmake/EmbedFiles.cmake): the Python files that make a FlashEVA
// model folder load in Hugging Face transformers, src/io/huggingface/*.py.
#pragma once

#include <span>
#include <string_view>

namespace flasheva {

struct EmbeddedFile {
  const char* name;
  std::string_view content;
};

std::span<const EmbeddedFile> embedded_files();

}  // namespace flasheva
