#include "src/io/tokenizer.h"

#include <nlohmann/json.hpp>

#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/log.h"
#include "src/core/text.h"
#include "src/io/tokenizer/bytes_tokenizer.h"
#include "src/io/tokenizer/tokenizer_json.h"

namespace flasheva {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::size_t max_json_bytes = std::size_t{256} << 20;

json read_json(const fs::path& path) {
  try {
    return json::parse(read_text_file(path, max_json_bytes));
  } catch (const json::exception& error) {
    fail(ExitCode::data, "{}: not JSON: {}", path.string(), printable(error.what(), 200));
  }
}

// "eos_token": "text", or an object with `content`.
std::optional<std::string> eos_token_in(const json& object) {
  if (!object.is_object() || !object.contains("eos_token")) return std::nullopt;
  const json& token = object["eos_token"];
  if (token.is_string()) return token.get<std::string>();
  if (token.is_object() && token.contains("content") && token["content"].is_string())
    return token["content"].get<std::string>();
  return std::nullopt;
}

TokenizerFiles read_files(const fs::path& folder) {
  TokenizerFiles files;
  files.folder = folder.string();
  files.tokenizer = read_text_file(folder / "tokenizer.json", max_json_bytes);
  const fs::path config = folder / "tokenizer_config.json", special = folder / "special_tokens_map.json";
  if (fs::exists(config)) files.config = read_json(config);
  files.eos_token = eos_token_in(files.config);
  if (fs::exists(special)) {
    files.special_tokens_map = read_text_file(special, max_json_bytes);
    if (!files.eos_token) files.eos_token = eos_token_in(read_json(special));
  }
  return files;
}

}  // namespace

std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view text, const std::string& where) {
  TokenizerFiles files;
  files.folder = where;
  files.tokenizer = std::string(text);
  return tokenizer_of_files(std::move(files), where);
}

std::unique_ptr<Tokenizer> tokenizer_of_folder(const fs::path& folder) {
  const fs::path path = folder / "tokenizer.json";
  if (!fs::exists(path)) return nullptr;
  return tokenizer_of_files(read_files(folder), path.string());
}

std::unique_ptr<Tokenizer> tokenizer_for_tokens(const fs::path& folder, const fs::path& token_file,
                                                const std::string& made_with) {
  std::unique_ptr<Tokenizer> tokenizer;
  try {
    tokenizer = tokenizer_of_folder(folder);
  } catch (const Error& error) {  // it is needed for bits per byte alone
    log_warning(fmt::format("no bits per byte: {}", error.what()));
  }
  constexpr std::string_view sample = "some text";
  if (made_with == "bytes" && tokenizer != nullptr &&
      tokenizer->encode(sample) != make_bytes_tokenizer()->encode(sample))
    fail(ExitCode::data,
         "{}: its tokens are bytes, those of {} are others; prepare the text with --tokenizer {}",
         token_file.string(), folder.string(), folder.string());
  return tokenizer;
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name_or_folder) {
  if (name_or_folder == "bytes") return make_bytes_tokenizer();
  if (!fs::is_directory(name_or_folder))
    fail(ExitCode::usage, "unknown tokenizer '{}'; give `bytes` or a folder with a tokenizer.json",
         printable(name_or_folder));
  std::unique_ptr<Tokenizer> tokenizer = tokenizer_of_folder(name_or_folder);
  if (tokenizer == nullptr)
    fail(ExitCode::data, "{}: has no tokenizer.json; give a folder that has one, or `bytes`", name_or_folder);
  return tokenizer;
}

}  // namespace flasheva
