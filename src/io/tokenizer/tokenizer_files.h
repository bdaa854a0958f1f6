// The files of a tokenizer's folder.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace flasheva {

struct TokenizerFiles {
  std::string folder;                             // as it was named
  std::string tokenizer;                          // tokenizer.json
  nlohmann::json config;                          // tokenizer_config.json; null where there is none
  std::optional<std::string> special_tokens_map;  // special_tokens_map.json
  std::optional<std::string> eos_token;           // that the last two name
};

}  // namespace flasheva
