#include "src/io/tokenizer/bytes_tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/core/file.h"
#include "src/io/tokenizer/byte_level.h"

namespace flasheva {

using nlohmann::json;

namespace {

bool is_byte(std::int32_t token) { return token >= 0 && token < static_cast<std::int32_t>(byte_values); }

// Byte-level BPE without merges.
json bytes_tokenizer_json() {
  json vocab = json::object();
  const auto& symbols = byte_symbols();
  for (std::size_t byte = 0; byte < symbols.size(); ++byte) vocab[symbols[byte]] = byte;
  const json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", json::array()}}}};
}

// Transformers 5 builds another tokenizer for gpt_neox unless tokenizer_class names this one; that of
// transformers 4 gives token_type_ids, which no GPT-NeoX takes, unless model_input_names leaves them out.
json bytes_tokenizer_config() {
  return {{"tokenizer_class", "PreTrainedTokenizerFast"},
          {"clean_up_tokenization_spaces", false},
          {"add_prefix_space", false},
          {"model_input_names", {"input_ids", "attention_mask"}},
          {"model_max_length", 1000000000}};
}

class BytesTokenizer : public Tokenizer {
 public:
  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> tokens(text.size());
    std::transform(text.begin(), text.end(), tokens.begin(),
                   [](char c) { return static_cast<std::uint8_t>(c); });
    return tokens;
  }

  std::size_t piece(std::string_view text, std::size_t max_bytes) const override {
    return std::min(text.size(), max_bytes);
  }

  std::string decode(const std::vector<std::int32_t>& tokens) const override {
    std::string text;
    for (const std::int32_t token : tokens)
      if (is_byte(token)) text += static_cast<char>(token);
    return text;
  }

  std::int64_t vocab_size() const override { return byte_values; }
  std::optional<std::int32_t> eos_token_id() const override { return std::nullopt; }
  std::int64_t bytes_of(std::int32_t token) const override { return is_byte(token); }
  std::string name() const override { return "bytes"; }

  void write_files(const std::filesystem::path& folder) const override {
    write_file_atomically(folder / "tokenizer.json", bytes_tokenizer_json().dump(2) + "\n");
    write_file_atomically(folder / "tokenizer_config.json", bytes_tokenizer_config().dump(2) + "\n");
  }
};

}  // namespace

std::unique_ptr<Tokenizer> make_bytes_tokenizer() { return std::make_unique<BytesTokenizer>(); }

}  // namespace flasheva
