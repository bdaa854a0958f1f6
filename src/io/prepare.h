// What `data prepare` and `data inspect` do: text to token files, and a token file checked and described.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "src/io/tokenizer.h"

namespace flasheva {

struct PrepareOptions {
  // Each a text file (one document), or with the ending .jsonl a document a line: {"text": "..."}, other keys
  // ignored.
  std::vector<std::filesystem::path> inputs;
  std::filesystem::path output;  // NAME.h5
  double validation = 0;  // this last fraction of the tokens goes to NAME-validation.h5; 0: no such file
};

struct PreparedFile {
  std::filesystem::path path;
  std::int64_t tokens = 0, documents = 0;
};

struct PrepareSummary {
  PreparedFile train;
  std::optional<PreparedFile> validation;
};

// Tokenizes the inputs in order, the tokenizer's EOS (if it has one) after each document, into HDF5
// (token_file.h). Inputs are streamed: of a text file a piece at a time is in memory, of JSONL a line. A
// document that the split cuts has a part in each file. Error{usage} for impossible options, Error{data}
// (file, line) for broken input.
PrepareSummary prepare_tokens(const PrepareOptions& options, const Tokenizer& tokenizer);

// Reads and checks the whole file; gives a description of several lines, or throws what TokenFile::verify
// throws.
std::string inspect_token_file(const std::filesystem::path& path);

}  // namespace flasheva
