#include "src/io/tokenizer/tokenizer_json.h"

#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "src/core/error.h"
#include "src/core/text.h"
#include "src/io/tokenizer/bpe_tokenizer.h"
#include "src/io/tokenizer/bytes_tokenizer.h"

namespace flasheva {

using nlohmann::json;

namespace {

using Ids = std::unordered_map<std::string_view, std::int32_t>;  // of tokens

constexpr std::size_t max_tokens = std::size_t{1} << 24;

// A value of the file with its path, for messages.
struct Part {
  const json& value;
  std::string path;
  const std::string& where;

  // The member `key` of an object, null where it is absent.
  Part at(const char* key) const {
    static const json null;
    const std::string name = path.empty() ? key : fmt::format("{}.{}", path, key);
    const auto found = value.is_object() ? value.find(key) : value.end();
    return {found == value.end() ? null : *found, name, where};
  }
  Part at(std::size_t index) const { return {value[index], fmt::format("{}[{}]", path, index), where}; }

  // The value in a few words: the type of a stage, or the JSON text of what is short.
  std::string brief() const {
    if (value.is_object() && at("type").value.is_string())
      return printable(at("type").value.get<std::string>());
    return value.is_structured() ? value.type_name() : printable(value.dump(-1, ' ', true));
  }

  [[noreturn]] void refuse(const std::string& problem) const {
    fail(ExitCode::data, "{}: {} {}; use a byte-level BPE tokenizer as GPT-NeoX's is", where, path, problem);
  }
  [[noreturn]] void refuse_unsupported() const { refuse(fmt::format("({}) is not supported", brief())); }

  bool has_type(const char* type) const { return value.is_object() && at("type").value == type; }
  bool is_absent() const { return value.is_null() || value == "" || value == false; }
  void require_absent() const {
    if (!is_absent()) refuse_unsupported();
  }
  bool boolean(std::optional<bool> otherwise) const {
    if (value.is_null() && otherwise) return *otherwise;
    if (!value.is_boolean()) refuse(fmt::format("({}) is not true or false", brief()));
    return value.get<bool>();
  }
  const std::string& text() const {
    if (!value.is_string()) refuse(fmt::format("({}) is not a string", brief()));
    return value.get_ref<const std::string&>();
  }
  void require_array() const {
    if (!value.is_array()) refuse(fmt::format("({}) is not an array", brief()));
  }
};

json parse_json(const std::string& text, const std::string& where) {
  try {
    json root = json::parse(text);
    if (root.is_object()) return root;
  } catch (const json::exception& error) {
    fail(ExitCode::data, "{}: not JSON: {}", where, printable(error.what(), 200));
  }
  fail(ExitCode::data, "{}: not a JSON object", where);
}

bool read_normalizer(const Part& part) {
  if (part.value.is_null()) return false;
  if (part.has_type("NFC")) return true;
  const Part members = part.at("normalizers");
  if (!part.has_type("Sequence") || !members.value.is_array()) part.refuse_unsupported();
  for (std::size_t i = 0; i < members.value.size(); ++i)
    if (!members.at(i).has_type("NFC")) members.at(i).refuse_unsupported();
  return !members.value.empty();
}

void check_post_processor(const Part& part) {
  if (part.value.is_null() || part.has_type("ByteLevel")) return;
  if (!part.has_type("TemplateProcessing")) part.refuse_unsupported();
  const Part single = part.at("single");
  const bool nothing_added = single.value.is_array() && single.value.size() == 1 &&
                             single.at(std::size_t{0}).at("Sequence").at("id").value == "A";
  if (!nothing_added) single.refuse("adds tokens, which is not supported");
}

std::vector<std::string> read_vocab(const Part& part) {
  if (!part.value.is_object()) part.refuse("is not an object");
  if (part.value.size() > max_tokens) part.refuse("is too large");
  std::vector<std::string> vocab(part.value.size());
  std::vector<bool> seen(vocab.size());
  for (const auto& [token, id] : part.value.items()) {
    const bool valid = id.is_number_unsigned() && id < vocab.size() && !seen[id.get<std::size_t>()];
    if (!valid)
      part.refuse(fmt::format("gives {} the id {}; ids must be 0 to {}, each once", printable(token),
                              Part{id, token, part.where}.brief(), vocab.size() - 1));
    vocab[id] = token;
    seen[id] = true;
  }
  return vocab;
}

// Bytes that no UTF-8 text has need no token.
void require_bytes(const Part& part, const Ids& ids) {
  for (std::size_t byte = 0; byte < byte_values; ++byte) {
    const bool occurs = byte < 0xc0 || (byte > 0xc1 && byte < 0xf5);
    if (occurs && !ids.contains(byte_symbols()[byte]))
      part.refuse(fmt::format("lacks a token for byte {}, {}", byte, byte_symbols()[byte]));
  }
}

std::int32_t id_of_merged(const std::string& token, const Part& part, const Ids& ids) {
  const auto found = ids.find(token);
  if (found == ids.end()) part.refuse(fmt::format("needs {}, which is not in model.vocab", printable(token)));
  return found->second;
}

std::pair<std::string, std::string> read_merge(const Part& part) {
  if (part.value.is_array() && part.value.size() == 2)
    return {part.at(std::size_t{0}).text(), part.at(std::size_t{1}).text()};
  const std::string& line = part.text();
  const std::size_t space = line.find(' ');
  if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos)
    part.refuse("is not two tokens with a space between");
  return {line.substr(0, space), line.substr(space + 1)};
}

std::vector<Merge> read_merges(const Part& part, const Ids& ids) {
  part.require_array();
  std::vector<Merge> merges;
  for (std::size_t i = 0; i < part.value.size(); ++i) {
    const Part merge = part.at(i);
    if (merge.value.is_string() && merge.text().starts_with("#version")) continue;  // merges.txt's first line
    const auto [left, right] = read_merge(merge);
    merges.push_back({id_of_merged(left, merge, ids), id_of_merged(right, merge, ids),
                      id_of_merged(left + right, merge, ids)});
  }
  return merges;
}

AddedToken read_added_token(const Part& part) {
  AddedToken token;
  token.content = part.at("content").text();
  if (token.content.empty()) part.at("content").refuse("is empty");
  token.single_word = part.at("single_word").boolean({});
  token.lstrip = part.at("lstrip").boolean({});
  token.rstrip = part.at("rstrip").boolean({});
  token.normalized = part.at("normalized").boolean({});
  token.special = part.at("special").boolean({});
  return token;
}

// `tokenizers` gives an added token the id that the vocabulary gives its content, else the next after the
// vocabulary, whatever the file says; a file that says otherwise is refused.
std::vector<AddedToken> read_added_tokens(const Part& part, const Ids& ids) {
  if (part.value.is_null()) return {};
  part.require_array();
  if (part.value.size() > max_tokens) part.refuse("is too large");
  std::vector<AddedToken> tokens;
  std::set<std::string> contents;
  auto next = static_cast<std::int32_t>(ids.size());
  for (std::size_t i = 0; i < part.value.size(); ++i) {
    AddedToken token = read_added_token(part.at(i));
    const auto known = ids.find(token.content);
    token.id = known == ids.end() ? next++ : known->second;
    if (!contents.insert(token.content).second) part.at(i).at("content").refuse("is there twice");
    if (part.at(i).at("id").value != token.id)
      part.at(i).at("id").refuse(
          fmt::format("is {}, but the token's id is {}", part.at(i).at("id").brief(), token.id));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void check_model(const Part& model) {
  if (!model.value.is_object()) model.refuse("is not an object");
  if (!model.has_type("BPE")) model.refuse_unsupported();
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) model.at(key).require_absent();
  if (model.at("dropout").value != 0) model.at("dropout").require_absent();
}

bool is_of_bytes(const BpeTokenizerParts& parts) {
  if (!parts.merges.empty() || !parts.added.empty() || parts.normalize || parts.add_prefix_space)
    return false;
  return std::equal(parts.vocab.begin(), parts.vocab.end(), byte_symbols().begin(), byte_symbols().end());
}

}  // namespace

std::unique_ptr<Tokenizer> tokenizer_of_files(TokenizerFiles files, const std::string& where) {
  const json tokenizer = parse_json(files.tokenizer, where);
  const Part root{tokenizer, "", where};
  for (const char* key : {"truncation", "padding"}) root.at(key).require_absent();
  const Part model = root.at("model"), byte_level = root.at("pre_tokenizer");
  check_model(model);
  if (!byte_level.has_type("ByteLevel")) byte_level.refuse_unsupported();
  if (!root.at("decoder").has_type("ByteLevel")) root.at("decoder").refuse_unsupported();
  check_post_processor(root.at("post_processor"));

  BpeTokenizerParts parts;
  parts.normalize = read_normalizer(root.at("normalizer"));
  parts.add_prefix_space = byte_level.at("add_prefix_space").boolean({});
  parts.ignore_merges = model.at("ignore_merges").boolean(false);
  parts.vocab = read_vocab(model.at("vocab"));
  Ids ids;
  for (const std::string& token : parts.vocab) ids.emplace(token, static_cast<std::int32_t>(ids.size()));
  require_bytes(model.at("vocab"), ids);
  parts.merges = read_merges(model.at("merges"), ids);
  parts.added = read_added_tokens(root.at("added_tokens"), ids);

  if (is_of_bytes(parts)) return make_bytes_tokenizer();
  const Part use_regex = byte_level.at("use_regex");
  if (!use_regex.boolean(true)) use_regex.refuse_unsupported();
  return std::make_unique<BpeTokenizer>(parts, std::move(files));
}

}  // namespace flasheva
