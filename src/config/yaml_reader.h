// Strict reading of one section (a YAML map): a key that is not listed, given twice or missing, a value of
// the wrong type or out of range each end in one line that names place, key and what was expected.
//
//     Section batch(node, "batch", {.required = {"sequences"}, .optional = {"micro"}});
//     batch.read("sequences", config.batch.sequences);
//     batch.read("micro", config.batch.micro);   // left as it is where the key is not there
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "src/config/config.h"
#include "src/config/numbers.h"
#include "src/config/yaml_node.h"

namespace flasheva {

// "a list", "'many'", "nothing": what a message says was found.
std::string describe(const YamlNode& node);

[[noreturn]] void fail_at(const Place& place, const std::string& message);

// One value; `path` is its dotted name.
std::int64_t read_integer(const YamlNode& node, const std::string& path, std::int64_t low, std::int64_t high);
double read_number(const YamlNode& node, const std::string& path, const NumberRange& range);
std::string read_text(const YamlNode& node, const std::string& path);

// The index of the node's text among `names`.
std::size_t read_choice(const YamlNode& node, const std::string& path, const std::vector<std::string>& names);

template <class Enum>
Enum read_enum(const YamlNode& node, const std::string& path) {
  const std::vector<std::string> names = names_of<Enum>();
  return *parse_name<Enum>(names[read_choice(node, path, names)]);
}

// Refuses what is not a list, and an empty one.
void check_list(const YamlNode& node, const std::string& path);

// Refuses what is not a map, and keys that are no plain names or given twice.
void check_map(const YamlNode& node, const std::string& path);

class Section {
 public:
  struct Keys {
    std::vector<std::string> required, optional;
  };

  // `node` must outlive the section; `path` is the section's dotted name, "" for the whole file.
  Section(const YamlNode& node, std::string path, const Keys& keys);

  const YamlNode* find(const std::string& key) const { return node_.find(key); }
  std::string path(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }
  // Where to point when the values of `keys` contradict each other: at the one that an override set, else at
  // the first that the file sets, else at the section.
  const Place& place(const std::vector<std::string>& keys) const;

  void read(const std::string& key, std::int64_t& out, std::int64_t low = 1,
            std::int64_t high = max_integer) const;
  void read(const std::string& key, std::optional<std::int64_t>& out, std::int64_t low,
            std::int64_t high) const;  // null: none
  void read(const std::string& key, std::uint64_t& out) const;
  void read(const std::string& key, double& out, const NumberRange& range) const;
  void read(const std::string& key, bool& out) const;
  void read(const std::string& key, std::string& out) const;
  void read(const std::string& key, std::filesystem::path& out) const;
  template <class Enum>
  requires std::is_enum_v<Enum>
  void read(const std::string& key, Enum& out) const {
    if (const YamlNode* node = find(key)) out = read_enum<Enum>(*node, path(key));
  }

 private:
  const YamlNode& node_;
  std::string path_;
};

}  // namespace flasheva
