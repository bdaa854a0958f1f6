#include "src/io/tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <set>

#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/text.h"
#include "src/io/tokenizer/nfc.h"
#include "src/io/tokenizer/utf8.h"

namespace flasheva {

namespace {

// The added tokens to be looked for before (`normalized` false) or after normalization, as they look there.
std::vector<AddedToken> added_tokens(const BpeTokenizerParts& parts, bool normalized) {
  std::vector<AddedToken> out;
  for (AddedToken token : parts.added) {
    if (token.normalized != normalized) continue;
    std::string buffer;
    if (normalized && parts.normalize) token.content = std::string(nfc(token.content, buffer));
    out.push_back(std::move(token));
  }
  return out;
}

Bpe make_bpe(const BpeTokenizerParts& parts) {
  std::array<std::int32_t, byte_values> byte_tokens;
  byte_tokens.fill(-1);
  std::unordered_map<std::string, std::int32_t> whole_words;
  for (std::size_t id = 0; id < parts.vocab.size(); ++id) {
    std::optional<std::string> bytes = bytes_of_symbols(parts.vocab[id]);
    if (!bytes) continue;
    if (bytes->size() == 1)
      byte_tokens[static_cast<std::uint8_t>(bytes->front())] = static_cast<std::int32_t>(id);
    if (parts.ignore_merges) whole_words.emplace(std::move(*bytes), static_cast<std::int32_t>(id));
  }
  return Bpe(byte_tokens, parts.merges, std::move(whole_words));
}

// What each id decodes to: the bytes that its symbols stand for, or the token as it is written where it is
// not made of symbols; nothing for special tokens.
std::vector<std::string> decoded_tokens(const BpeTokenizerParts& parts,
                                        const std::vector<AddedToken>& raw_added,
                                        const std::vector<AddedToken>& normalized_added) {
  std::vector<std::string> tokens = parts.vocab;
  std::set<std::string> special;
  for (const AddedToken& token : parts.added) {
    if (token.special) special.insert(token.content);
    tokens.resize(std::max(tokens.size(), static_cast<std::size_t>(token.id) + 1));
  }
  for (const auto* added : {&raw_added, &normalized_added})
    for (const AddedToken& token : *added) tokens[static_cast<std::size_t>(token.id)] = token.content;
  for (std::string& token : tokens)
    token = special.contains(token) ? "" : bytes_of_symbols(token).value_or(token);
  return tokens;
}

std::vector<AddedToken> both(const AddedTokens& first, const AddedTokens& second) {
  std::vector<AddedToken> out = first.tokens();
  out.insert(out.end(), second.tokens().begin(), second.tokens().end());
  return out;
}

std::optional<std::int32_t> id_of(const std::string& token, const BpeTokenizerParts& parts) {
  for (const AddedToken& added : parts.added)
    if (added.content == token) return added.id;
  const auto found = std::find(parts.vocab.begin(), parts.vocab.end(), token);
  if (found == parts.vocab.end()) return std::nullopt;
  return static_cast<std::int32_t>(found - parts.vocab.begin());
}

std::optional<std::int32_t> find_eos(const BpeTokenizerParts& parts, const TokenizerFiles& files) {
  if (!files.eos_token) {
    const auto is_default = [](const AddedToken& t) { return t.special && t.content == "<|endoftext|>"; };
    const auto found = std::find_if(parts.added.begin(), parts.added.end(), is_default);
    return found == parts.added.end() ? std::nullopt : std::optional(found->id);
  }
  const std::optional<std::int32_t> id = id_of(*files.eos_token, parts);
  if (!id)
    fail(ExitCode::data, "{}: eos_token {} is no token of tokenizer.json; add it there or name another",
         files.folder, printable(*files.eos_token));
  return id;
}

}  // namespace

// Takes an idle workspace, or makes one, and gives it back at the end of the scope.
class BpeTokenizer::Lease {
 public:
  explicit Lease(const BpeTokenizer& owner) : owner_(owner) {
    const std::lock_guard lock(owner_.mutex_);
    if (owner_.idle_.empty()) {
      workspace_ = std::make_unique<Workspace>();
    } else {
      workspace_ = std::move(owner_.idle_.back());
      owner_.idle_.pop_back();
    }
  }
  ~Lease() {
    const std::lock_guard lock(owner_.mutex_);
    owner_.idle_.push_back(std::move(workspace_));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Workspace& operator*() { return *workspace_; }

 private:
  const BpeTokenizer& owner_;
  std::unique_ptr<Workspace> workspace_;
};

BpeTokenizer::BpeTokenizer(const BpeTokenizerParts& parts, TokenizerFiles files)
    : normalize_(parts.normalize),
      add_prefix_space_(parts.add_prefix_space),
      raw_added_(added_tokens(parts, false)),
      normalized_added_(added_tokens(parts, true)),
      bpe_(make_bpe(parts)),
      cut_rule_(parts.add_prefix_space, both(raw_added_, normalized_added_)),
      bytes_(decoded_tokens(parts, raw_added_.tokens(), normalized_added_.tokens())),
      eos_(find_eos(parts, files)),
      files_(std::move(files)) {}

std::vector<std::int32_t> BpeTokenizer::encode(std::string_view text) const {
  Lease workspace(*this);
  std::vector<std::int32_t> tokens;
  text = well_formed(text, (*workspace).well_formed);
  auto& sections = (*workspace).raw_sections;
  raw_added_.divide(text, sections);
  for (const TextSection& section : sections) {
    if (section.token != TextSection::no_token)
      tokens.push_back(section.token);
    else
      encode_raw(text.substr(section.begin, section.end - section.begin), tokens, *workspace);
  }
  return tokens;
}

// Text without raw added tokens.
void BpeTokenizer::encode_raw(std::string_view text, std::vector<std::int32_t>& tokens,
                              Workspace& workspace) const {
  if (normalize_) text = nfc(text, workspace.normalized);
  normalized_added_.divide(text, workspace.sections);
  for (const TextSection& section : workspace.sections) {
    if (section.token != TextSection::no_token)
      tokens.push_back(section.token);
    else
      encode_words(text.substr(section.begin, section.end - section.begin), tokens, workspace);
  }
}

// Text without added tokens.
void BpeTokenizer::encode_words(std::string_view text, std::vector<std::int32_t>& tokens,
                                Workspace& workspace) const {
  if (add_prefix_space_ && text.front() != ' ') {
    workspace.prefixed = ' ';
    workspace.prefixed += text;
    text = workspace.prefixed;
  }
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = workspace.words.end_of_word(text, at);
    bpe_.encode(text.substr(at, end - at), tokens, workspace.bpe);
    at = end;
  }
}

std::size_t BpeTokenizer::piece(std::string_view text, std::size_t max_bytes) const {
  return cut_rule_.piece(text, max_bytes);
}

std::string BpeTokenizer::decode(const std::vector<std::int32_t>& tokens) const {
  std::string text;
  for (const std::int32_t token : tokens)
    if (token >= 0 && token < vocab_size()) text += bytes_[static_cast<std::size_t>(token)];
  return text;
}

std::int64_t BpeTokenizer::bytes_of(std::int32_t token) const {
  const bool known = token >= 0 && token < vocab_size();
  return known ? static_cast<std::int64_t>(bytes_[static_cast<std::size_t>(token)].size()) : 0;
}

// tokenizer_class PreTrainedTokenizerFast takes tokenizer.json as it is; transformers 5 would build another
// tokenizer for the class of GPT-NeoX. In transformers 4 it gives token_type_ids, which no GPT-NeoX takes,
// unless model_input_names leaves them out.
void BpeTokenizer::write_files(const std::filesystem::path& folder) const {
  nlohmann::json config = {{"clean_up_tokenization_spaces", false},
                           {"model_input_names", {"input_ids", "attention_mask"}},
                           {"model_max_length", 1000000000}};
  if (eos_ && !files_.eos_token) config["eos_token"] = "<|endoftext|>";
  if (files_.config.is_object()) config.update(files_.config);
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["add_prefix_space"] = add_prefix_space_;
  config.erase("auto_map");
  write_file_atomically(folder / "tokenizer.json", files_.tokenizer);
  write_file_atomically(folder / "tokenizer_config.json", config.dump(2) + "\n");
  if (files_.special_tokens_map)
    write_file_atomically(folder / "special_tokens_map.json", *files_.special_tokens_map);
}

}  // namespace flasheva
