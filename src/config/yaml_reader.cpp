#include "src/config/yaml_reader.h"

#include <algorithm>
#include <set>
#include <utility>

#include "src/core/error.h"
#include "src/core/text.h"

namespace flasheva {

using Kind = YamlNode::Kind;

namespace {

[[noreturn]] void fail_type(const YamlNode& node, const std::string& path, const std::string& expected) {
  fail_at(node.place, fmt::format("{}: expected {}, found {}", path, expected, describe(node)));
}

std::string join(const std::vector<std::string>& names) { return fmt::format("{}", fmt::join(names, ", ")); }

// "; did you mean 'window'?", or all names where none is near.
std::string hint(const std::string& name, const std::vector<std::string>& names) {
  const std::string nearest = nearest_name(name, names);
  return nearest.empty() ? fmt::format("; known: {}", join(names))
                         : fmt::format("; did you mean '{}'?", nearest);
}

}  // namespace

std::string describe(const YamlNode& node) {
  switch (node.kind) {
    case Kind::null:
      return "nothing";
    case Kind::list:
      return "a list";
    case Kind::map:
      return "a section";
    case Kind::scalar:
      return (node.quoted ? "the text '" : "'") + printable(node.scalar) + "'";
  }
  return "";
}

void fail_at(const Place& place, const std::string& message) {
  throw Error(ExitCode::usage, place.text() + ": " + message);
}

std::int64_t read_integer(const YamlNode& node, const std::string& path, std::int64_t low,
                          std::int64_t high) {
  if (node.kind != Kind::scalar || node.quoted || !looks_like_integer(node.scalar))
    fail_type(node, path, "an integer");
  const std::optional<std::int64_t> value = number_from<std::int64_t>(node.scalar);
  if (!value || *value < low || *value > high)
    fail_at(node.place, fmt::format("{} is {}; it must be an integer from {} to {}", path,
                                    printable(node.scalar), low, high));
  return *value;
}

double read_number(const YamlNode& node, const std::string& path, const NumberRange& range) {
  const std::optional<double> value =
      node.kind == Kind::scalar && !node.quoted ? finite_number_from(node.scalar) : std::nullopt;
  if (!value) fail_type(node, path, "a finite number");
  if (!range.contains(*value))
    fail_at(node.place, fmt::format("{} is {}; it must be {}", path, printable(node.scalar), range.text));
  return *value;
}

std::string read_text(const YamlNode& node, const std::string& path) {
  if (node.kind != Kind::scalar || node.scalar.empty()) fail_type(node, path, "a text");
  return node.scalar;
}

std::size_t read_choice(const YamlNode& node, const std::string& path,
                        const std::vector<std::string>& names) {
  if (node.kind != Kind::scalar) fail_type(node, path, "one of " + join(names));
  const auto found = std::find(names.begin(), names.end(), node.scalar);
  if (found == names.end())
    fail_at(node.place,
            fmt::format("{}: unknown value '{}'{}", path, printable(node.scalar), hint(node.scalar, names)));
  return static_cast<std::size_t>(found - names.begin());
}

void check_list(const YamlNode& node, const std::string& path) {
  if (node.kind != Kind::list) fail_type(node, path, "a list");
  if (node.items.empty()) fail_at(node.place, path + " is empty; it needs at least one entry");
}

void check_map(const YamlNode& node, const std::string& path) {
  if (node.kind != Kind::map)
    fail_type(node, path.empty() ? "configuration" : path, "a section (key: value)");
  std::set<std::string> seen;
  for (const YamlNode& key : node.keys) {
    if (key.kind != Kind::scalar)
      fail_at(key.place, fmt::format("a key is {}; it must be a name", describe(key)));
    if (!seen.insert(key.scalar).second)
      fail_at(key.place, fmt::format("key '{}' is given twice{}", printable(key.scalar),
                                     path.empty() ? "" : " in " + path));
  }
}

Section::Section(const YamlNode& node, std::string path, const Keys& keys)
    : node_(node), path_(std::move(path)) {
  check_map(node, path_);
  std::vector<std::string> known = keys.required;
  known.insert(known.end(), keys.optional.begin(), keys.optional.end());
  for (const YamlNode& key : node.keys) {
    if (std::find(known.begin(), known.end(), key.scalar) != known.end()) continue;
    fail_at(key.place, fmt::format("unknown key '{}'{}{}", printable(key.scalar),
                                   path_.empty() ? "" : " in " + path_, hint(key.scalar, known)));
  }
  for (const std::string& key : keys.required)
    if (find(key) == nullptr) fail_at(node.place, this->path(key) + " is missing");
}

const Place& Section::place(const std::vector<std::string>& keys) const {
  const YamlNode* first = &node_;
  for (const std::string& key : keys) {
    const YamlNode* node = find(key);
    if (node == nullptr) continue;
    if (node->place.in_override()) return node->place;
    if (first == &node_) first = node;
  }
  return first->place;
}

void Section::read(const std::string& key, std::int64_t& out, std::int64_t low, std::int64_t high) const {
  if (const YamlNode* node = find(key)) out = read_integer(*node, path(key), low, high);
}

void Section::read(const std::string& key, std::optional<std::int64_t>& out, std::int64_t low,
                   std::int64_t high) const {
  const YamlNode* node = find(key);
  if (node != nullptr && node->kind != Kind::null) out = read_integer(*node, path(key), low, high);
}

void Section::read(const std::string& key, std::uint64_t& out) const {
  const YamlNode* node = find(key);
  if (node == nullptr) return;
  const std::optional<std::uint64_t> value =
      node->kind == Kind::scalar && !node->quoted ? number_from<std::uint64_t>(node->scalar) : std::nullopt;
  if (!value) fail_type(*node, path(key), "an integer from 0 to 18446744073709551615");
  out = *value;
}

void Section::read(const std::string& key, double& out, const NumberRange& range) const {
  if (const YamlNode* node = find(key)) out = read_number(*node, path(key), range);
}

void Section::read(const std::string& key, bool& out) const {
  const YamlNode* node = find(key);
  if (node == nullptr) return;
  if (node->kind != Kind::scalar || node->quoted || (node->scalar != "true" && node->scalar != "false"))
    fail_type(*node, path(key), "true or false");
  out = node->scalar == "true";
}

void Section::read(const std::string& key, std::string& out) const {
  if (const YamlNode* node = find(key)) out = read_text(*node, path(key));
}

void Section::read(const std::string& key, std::filesystem::path& out) const {
  if (const YamlNode* node = find(key)) out = read_text(*node, path(key));
}

}  // namespace flasheva
