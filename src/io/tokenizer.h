// Text to token ids and back.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace flasheva {

// Threads may share a tokenizer: every member function may be called from many at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Byte-level BPE reads UTF-8, with U+FFFD for what is malformed, as Python's errors="replace" gives it.
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  // Bytes of the longest start of `text`, about `max_bytes` at most and never 0 for text that is not empty,
  // that can be encoded apart from the rest without changing an id: so files are encoded in pieces.
  virtual std::size_t piece(std::string_view text, std::size_t max_bytes) const = 0;
  // The bytes of the tokens, one after another; special tokens, and ids that no token has, give none.
  virtual std::string decode(const std::vector<std::int32_t>& tokens) const = 0;
  virtual std::int64_t vocab_size() const = 0;
  // What ends a document: the `eos_token` of the folder's tokenizer_config.json, else of
  // special_tokens_map.json, else the special token <|endoftext|>.
  virtual std::optional<std::int32_t> eos_token_id() const = 0;
  // Bytes that decode() gives for one token.
  virtual std::int64_t bytes_of(std::int32_t token) const = 0;
  // What token files keep in their `tokenizer` attribute: `bytes`, or the folder.
  virtual std::string name() const = 0;
  // Writes the files that Hugging Face's AutoTokenizer loads to the same ids.
  virtual void write_files(const std::filesystem::path& folder) const = 0;
};

// `bytes` (id = byte value, vocabulary 256), or a folder with a tokenizer.json as GPT-NeoX and Pythia have it
// (what is read of it: tokenizer/tokenizer_json.h). Error{usage} for an unknown name, Error{data} for a file
// that is broken or has an unsupported part (named).
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name_or_folder);

// The tokenizer that a tokenizer.json describes; `where` names the file in messages. The fuzz target.
std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view text, const std::string& where);

// The tokenizer of a model folder, or nullptr where it has no tokenizer.json.
std::unique_ptr<Tokenizer> tokenizer_of_folder(const std::filesystem::path& folder);

// The same for a model that is given the tokens of `token_file`, which `made_with`, its tokenizer attribute,
// made: what tells how many bytes they stand for. nullptr also for a tokenizer that cannot be read; a warning
// says why. Error{data} where the tokens are bytes and those of the folder are others.
std::unique_ptr<Tokenizer> tokenizer_for_tokens(const std::filesystem::path& folder,
                                                const std::filesystem::path& token_file,
                                                const std::string& made_with);

}  // namespace flasheva
