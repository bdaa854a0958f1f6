#include "src/io/split_token_writer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/core/error.h"
#include "src/core/text.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

std::int64_t tokens_for_training(std::int64_t tokens, double validation) {
  if (validation == 0) return std::numeric_limits<std::int64_t>::max();
  const std::int64_t last = std::llround(validation * static_cast<double>(tokens));
  if (last == 0 || last == tokens)
    fail(ExitCode::data, "{} tokens leave {} for validation and {} for training; give more text", tokens,
         last, tokens - last);
  return tokens - last;
}

}  // namespace

fs::path validation_path(const fs::path& output) {
  return output.parent_path() / (output.stem().string() + "-validation.h5");
}

std::string file_names(const std::vector<fs::path>& files) {
  constexpr std::size_t max_bytes = 1000;
  std::string names;
  for (const fs::path& file : files) names += (names.empty() ? "" : ", ") + file.filename().string();
  return printable(names, max_bytes);
}

void check_output(const fs::path& output, double validation) {
  if (!(validation >= 0 && validation < 1))
    fail(ExitCode::usage, "validation is {}; it must be a fraction from 0 to below 1", validation);
  if (output.extension() != ".h5") fail(ExitCode::usage, "output {} must end in .h5", output.string());
}

void refuse_existing(const fs::path& output, double validation) {
  for (const fs::path& path : {output, validation_path(output)})
    if ((path == output || validation > 0) && fs::exists(path))
      fail(ExitCode::usage, "{}: exists already; choose another --output, or make it anew with --fresh",
           path.string());
}

SplitTokenWriter::SplitTokenWriter(const fs::path& output, const TokenFileAttributes& attributes,
                                   std::int64_t tokens, double validation)
    : output_(output), train_tokens_(tokens_for_training(tokens, validation)), train_(output, attributes) {
  if (validation > 0) validation_.emplace(validation_path(output), attributes);
}

void SplitTokenWriter::append(std::span<const std::int32_t> tokens) {
  if (tokens.empty()) return;
  const auto room = static_cast<std::size_t>(
      std::min(train_tokens_ - train_.tokens(), static_cast<std::int64_t>(tokens.size())));
  train_.append(tokens.first(room));
  if (room < tokens.size()) {
    if (validation_->tokens() == 0 && (inside_document_ || room > 0)) train_.end_document();
    validation_->append(tokens.subspan(room));
  }
  inside_document_ = true;
}

void SplitTokenWriter::end_document() {
  (validation_ && validation_->tokens() > 0 ? *validation_ : train_).end_document();
  inside_document_ = false;
}

PreparedFiles SplitTokenWriter::finish() {
  PreparedFiles files;
  train_.finish();
  files.train = {output_, train_.tokens(), train_.documents()};
  if (!validation_) return files;
  validation_->finish();
  files.validation = {validation_path(output_), validation_->tokens(), validation_->documents()};
  return files;
}

}  // namespace flasheva
