// Tokens on their way into NAME.h5, kept so that a killed program loses little: HDF5 files that were being
// written when their program was killed cannot be trusted, so the folder NAME.h5.partial takes what comes:
//
//     tokens.bin      ids, as wide as the token file's (uint16 or uint32)
//     documents.bin   where documents end, uint64
//     journal.json    how much of both is sure, and the owner's record: what made it, how far it came
//
// The journal is replaced as a whole after the others are flushed; what they hold beyond it is cut off on the
// next start. Takes as much room as the finished file, until that is written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "src/core/file.h"

namespace flasheva {

class SplitTokenWriter;

class PartialTokens {
 public:
  // Opens or creates the folder for the token file `output`, and goes on after its last commit; with `fresh`
  // from nothing. Error{data} for a folder that is damaged or that another program writes to now.
  PartialTokens(const std::filesystem::path& output, std::int64_t vocab_size, bool fresh);
  // Removes the folder if nothing was ever committed.
  ~PartialTokens();
  PartialTokens(const PartialTokens&) = delete;
  PartialTokens& operator=(const PartialTokens&) = delete;

  // What was passed to the last commit, of this program or one before; null if there was none.
  const nlohmann::json& record() const { return record_; }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t documents() const { return documents_; }

  // Error{data} for an id that is not below vocab_size.
  void append(std::span<const std::int32_t> tokens);
  void end_document();
  // What was appended so far is kept from now on, and `record` with it.
  void commit(const nlohmann::json& record);

  // Hands everything on, in pieces; calls `progress` with the tokens handed on so far.
  void copy_to(SplitTokenWriter& writer, const std::function<void(std::int64_t)>& progress);
  // The token file is written: the folder goes.
  void remove();

 private:
  void read_journal();
  void open_files();
  void flush_buffers();

  std::filesystem::path folder_;
  std::int64_t vocab_size_;
  std::int64_t tokens_ = 0, documents_ = 0;
  nlohmann::json record_;
  std::optional<FolderLock> lock_;
  std::optional<FileWriter> token_file_, document_file_;
  std::string token_bytes_, document_bytes_;  // appended and not written yet
};

}  // namespace flasheva
