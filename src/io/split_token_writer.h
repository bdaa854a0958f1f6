// A stream of tokens cut in two: NAME.h5 and, its last part, NAME-validation.h5.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/io/token_file.h"

namespace flasheva {

struct PreparedFile {
  std::filesystem::path path;
  std::int64_t tokens = 0, documents = 0;
};

struct PreparedFiles {
  PreparedFile train;
  std::optional<PreparedFile> validation;
};

// "data/pile.h5" -> "data/pile-validation.h5".
std::filesystem::path validation_path(const std::filesystem::path& output);

// The files' names, for a token file's attribute `source` and for messages.
std::string file_names(const std::vector<std::filesystem::path>& files);

// Error{usage} for an output that does not end in .h5 or a fraction that is not from 0 to below 1.
void check_output(const std::filesystem::path& output, double validation);
// Error{usage} for a file that would be replaced.
void refuse_existing(const std::filesystem::path& output, double validation);

// A document that the cut divides has a part in each file. No file appears before finish().
class SplitTokenWriter {
 public:
  // Of `tokens` in all, the last round(validation * tokens) go to the second file; with 0 there is none, and
  // `tokens` may be anything. Error{data} if either file would be empty.
  SplitTokenWriter(const std::filesystem::path& output, const TokenFileAttributes& attributes,
                   std::int64_t tokens, double validation);

  // Error{data} for an id that is not below vocab_size.
  void append(std::span<const std::int32_t> tokens);
  void end_document();
  std::int64_t tokens() const { return train_.tokens() + (validation_ ? validation_->tokens() : 0); }
  PreparedFiles finish();

 private:
  std::filesystem::path output_;
  std::int64_t train_tokens_;
  TokenFileWriter train_;
  std::optional<TokenFileWriter> validation_;
  bool inside_document_ = false;
};

}  // namespace flasheva
