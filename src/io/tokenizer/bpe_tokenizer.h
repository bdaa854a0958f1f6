// The tokenizer of GPT-NeoX and Pythia. Text goes through these stages:
//
//     malformed UTF-8 replaced -> added tokens that are not `normalized` found -> NFC
//     -> the other added tokens found -> words -> byte pair encoding of each word
//
// as in Hugging Face's `tokenizers`, id for id.
#pragma once

#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/io/tokenizer.h"
#include "src/io/tokenizer/added_tokens.h"
#include "src/io/tokenizer/bpe.h"
#include "src/io/tokenizer/cut_rule.h"
#include "src/io/tokenizer/tokenizer_files.h"
#include "src/io/tokenizer/words.h"

namespace flasheva {

// What a tokenizer.json says.
struct BpeTokenizerParts {
  std::vector<std::string> vocab;  // by id, as written there
  std::vector<Merge> merges;
  std::vector<AddedToken> added;
  bool ignore_merges = false;
  bool normalize = false;  // to NFC
  bool add_prefix_space = false;
};

class BpeTokenizer : public Tokenizer {
 public:
  BpeTokenizer(const BpeTokenizerParts& parts, TokenizerFiles files);

  std::vector<std::int32_t> encode(std::string_view text) const override;
  std::size_t piece(std::string_view text, std::size_t max_bytes) const override;
  std::string decode(const std::vector<std::int32_t>& tokens) const override;
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(bytes_.size()); }
  std::optional<std::int32_t> eos_token_id() const override { return eos_; }
  std::int64_t bytes_of(std::int32_t token) const override;
  std::string name() const override { return files_.folder; }
  void write_files(const std::filesystem::path& folder) const override;

 private:
  // What one call of encode() needs for itself.
  struct Workspace {
    WordFinder words;
    Bpe::Workspace bpe;
    std::string well_formed, normalized, prefixed;
    std::vector<TextSection> raw_sections, sections;
  };
  class Lease;  // of a workspace

  void encode_raw(std::string_view text, std::vector<std::int32_t>& tokens, Workspace& workspace) const;
  void encode_words(std::string_view text, std::vector<std::int32_t>& tokens, Workspace& workspace) const;

  bool normalize_, add_prefix_space_;
  AddedTokens raw_added_, normalized_added_;
  Bpe bpe_;
  CutRule cut_rule_;
  std::vector<std::string> bytes_;  // what each id decodes to
  std::optional<std::int32_t> eos_;
  TokenizerFiles files_;

  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace flasheva
