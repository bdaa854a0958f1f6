#include "src/io/tokenizer.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "kernels/check.h"
#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/text.h"

namespace flasheva {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::int64_t byte_values = 256;
constexpr std::size_t max_json_bytes = std::size_t{256} << 20;

// GPT-2's symbol of every byte, in UTF-8: printable Latin-1 characters stand for themselves, the others, in
// order, are U+0100, U+0101, ...
std::array<std::string, byte_values> byte_symbols() {
  std::array<std::string, byte_values> symbols;
  unsigned next = 0x100;
  for (unsigned byte = 0; byte < byte_values; ++byte) {
    const bool itself = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    const unsigned character = itself ? byte : next++;
    if (character >= 0x80) symbols[byte] += static_cast<char>(0xc0 | character >> 6);
    symbols[byte] += static_cast<char>(character < 0x80 ? character : 0x80 | (character & 0x3f));
  }
  return symbols;
}

json bytes_tokenizer_json() {
  json vocab = json::object();
  const auto symbols = byte_symbols();
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

// Transformers 5 builds another tokenizer for gpt_neox unless tokenizer_class names this one.
json bytes_tokenizer_config() {
  return {{"tokenizer_class", "PreTrainedTokenizerFast"},
          {"clean_up_tokenization_spaces", false},
          {"add_prefix_space", false},
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
    std::string text(tokens.size(), '\0');
    std::transform(tokens.begin(), tokens.end(), text.begin(), [](std::int32_t token) {
      FLASHEVA_CHECK(token >= 0 && token < byte_values);
      return static_cast<char>(token);
    });
    return text;
  }

  std::int64_t vocab_size() const override { return byte_values; }
  std::optional<std::int32_t> eos_token_id() const override { return std::nullopt; }
  std::int64_t bytes_of(std::int32_t) const override { return 1; }
  std::string name() const override { return "bytes"; }

  void write_files(const fs::path& folder) const override {
    write_file_atomically(folder / "tokenizer.json", bytes_tokenizer_json().dump(2) + "\n");
    write_file_atomically(folder / "tokenizer_config.json", bytes_tokenizer_config().dump(2) + "\n");
  }
};

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  fail(ExitCode::data,
       "{}: {}; only the bytes tokenizer is supported (byte-level BPE without merges, id = byte value)",
       where, what);
}

// The value of `key`, null where it is absent.
const json& at_or_null(const json& object, const char* key) {
  static const json null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

// `value` in a few words that fit into a message.
std::string brief(const json& value) {
  if (value.is_object() && at_or_null(value, "type").is_string())
    return printable(value["type"].get<std::string>());
  return value.is_structured() ? value.type_name() : printable(value.dump(-1, ' ', true));
}

void require_absent(const json& object, const char* key, const std::string& path, const std::string& where) {
  const json& value = at_or_null(object, key);
  const bool absent = value.is_null() || (value.is_array() && value.empty()) || value == "" || value == false;
  if (!absent) refuse(where, fmt::format("{}{} ({}) is not supported", path, key, brief(value)));
}

void require_byte_level(const json& root, const char* key, bool may_be_absent, const std::string& where) {
  const json& part = at_or_null(root, key);
  if (part.is_null() && may_be_absent) return;
  if (!part.is_object() || at_or_null(part, "type") != "ByteLevel")
    refuse(where, fmt::format("{} ({}) is not supported", key, brief(part)));
}

// Every byte's symbol with the byte's value, and nothing else.
void require_byte_vocab(const json& vocab, const std::string& where) {
  if (!vocab.is_object()) refuse(where, "model.vocab is not an object");
  if (vocab.size() != byte_values)
    refuse(where, fmt::format("model.vocab has {} entries, not 256", vocab.size()));
  const auto symbols = byte_symbols();
  for (std::size_t byte = 0; byte < symbols.size(); ++byte) {
    const json& id = at_or_null(vocab, symbols[byte].c_str());
    if (!id.is_number_integer() || id != byte)
      refuse(where, fmt::format("model.vocab gives the symbol of byte {} the id {}", byte, brief(id)));
  }
}

}  // namespace

std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view text, const std::string& where) {
  json root;
  try {
    root = json::parse(text);
  } catch (const json::exception& error) {
    fail(ExitCode::data, "{}: not JSON: {}", where, printable(error.what(), 200));
  }
  if (!root.is_object()) fail(ExitCode::data, "{}: not a JSON object", where);
  for (const char* key : {"truncation", "padding", "added_tokens", "normalizer"})
    require_absent(root, key, "", where);
  require_byte_level(root, "pre_tokenizer", false, where);
  if (at_or_null(root["pre_tokenizer"], "add_prefix_space") != false)
    refuse(where, "pre_tokenizer.add_prefix_space is not false");
  require_byte_level(root, "post_processor", true, where);
  require_byte_level(root, "decoder", false, where);

  const json& model = at_or_null(root, "model");
  if (!model.is_object()) refuse(where, "model is not an object");
  if (at_or_null(model, "type") != "BPE")
    refuse(where, fmt::format("model ({}) is not supported", brief(model)));
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "merges"})
    require_absent(model, key, "model.", where);
  require_byte_vocab(at_or_null(model, "vocab"), where);
  return std::make_unique<BytesTokenizer>();
}

std::unique_ptr<Tokenizer> tokenizer_of_folder(const fs::path& folder) {
  const fs::path path = folder / "tokenizer.json";
  if (!fs::exists(path)) return nullptr;
  return parse_tokenizer_json(read_text_file(path, max_json_bytes), path.string());
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name_or_folder) {
  if (name_or_folder == "bytes") return std::make_unique<BytesTokenizer>();
  if (!fs::is_directory(name_or_folder))
    fail(ExitCode::usage, "unknown tokenizer '{}'; give `bytes` or a folder with a tokenizer.json",
         printable(name_or_folder));
  std::unique_ptr<Tokenizer> tokenizer = tokenizer_of_folder(name_or_folder);
  if (tokenizer == nullptr)
    fail(ExitCode::data, "{}: has no tokenizer.json; give a folder that has one, or `bytes`", name_or_folder);
  return tokenizer;
}

}  // namespace flasheva
