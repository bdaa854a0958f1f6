// What `data prepare` and `data inspect` do: text to token files, and a token file checked and described.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "src/io/split_token_writer.h"
#include "src/io/tokenizer.h"

namespace flasheva {

struct PrepareOptions {
  // Each a text file (one document), or with the ending .jsonl or .ndjson a document a line: {"text": "..."},
  // other keys ignored. Both also compressed: .gz, .zst.
  std::vector<std::filesystem::path> inputs;
  std::filesystem::path output;  // NAME.h5
  double validation = 0;  // this last fraction of the tokens goes to NAME-validation.h5; 0: no such file
  std::string text_key = "text";
  int threads = 0;             // that tokenize; 0: all cores
  bool fresh = false;          // start anew, whatever an earlier run left
  std::string tokenizer_id{};  // more than its name: another text here is another tokenizer to a later run

  std::size_t max_line_bytes = std::size_t{64} << 20;  // of JSONL, and of text with no place to cut
  double seconds_between_commits = 10;                 // work that a killed run loses
};

// Tokenizes the inputs in order, the tokenizer's EOS (if it has one) after each document, into HDF5
// (token_file.h). The result is the same for any number of threads. Inputs are streamed: in memory are two
// pieces a thread, of about a MiB or one longer line each. A document that the split cuts has a part in each
// file.
//
// A run that was killed goes on where it was (partial_tokens.h) when it is started with the same inputs, key
// and tokenizer, and gives the same files. Error{usage} for impossible options, for a finished output without
// `fresh`, and for an unfinished one of other options or inputs; Error{data} (file, line or byte) for broken
// input; Error{disk} where it cannot be written.
PreparedFiles prepare_tokens(const PrepareOptions& options, const Tokenizer& tokenizer);

// Reads and checks the whole file; gives a description of several lines, or throws what TokenFile::verify
// throws.
std::string inspect_token_file(const std::filesystem::path& path);

}  // namespace flasheva
