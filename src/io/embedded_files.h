// Text files that the binary carries with it (cmake/EmbedFiles.cmake), src/io/huggingface/*.py: those that
// make a FlashEVA model folder load in Hugging Face transformers, and the script of `convert --verify`.
#pragma once

#include <span>
#include <string_view>

namespace flasheva {

struct EmbeddedFile {
  const char* name;
  std::string_view content;
};

std::span<const EmbeddedFile> embedded_files();

// The content of one; the name must be there.
std::string_view embedded_file(std::string_view name);

}  // namespace flasheva
