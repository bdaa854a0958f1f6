// YAML text as a tree of plain values that remember where they stand. Unlike yaml-cpp's own nodes these keep
// duplicate keys, copy like values and know whether they came from the file or from an override.
// Errors are Error{usage} of one line, prefixed with the place.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace flasheva {

// Where a value stands: a line and column (from 1) of a file, or an override of the command line (line 0).
struct Place {
  std::shared_ptr<const std::string> source;
  int line = 0, column = 0;

  bool in_override() const { return line == 0; }
  std::string text() const;  // "run.yaml:3:14", "override 'phases.0.steps=1'"
};

struct YamlNode {
  enum class Kind { null, scalar, list, map };

  Kind kind = Kind::null;
  Place place;
  std::string scalar;
  bool quoted = false;          // a quoted scalar is text, never a number
  std::vector<YamlNode> items;  // of a list; of a map its values, in step with `keys`
  std::vector<YamlNode> keys;   // of a map

  // The value of the first such key of a map, or nullptr.
  const YamlNode* find(const std::string& key) const;
};

// The most text that is read: a configuration has some kilobytes.
constexpr std::size_t max_yaml_bytes = std::size_t{1} << 17;

// One document. Anchors, aliases, tags, further documents and deep nesting are refused, so the work is
// bounded by the length of the text. `source` stands for the file in messages.
YamlNode parse_yaml(const std::string& text, const std::string& source);

// Sets what `assignment`, "key.path=value", names: sections on the way that are not there are made, list
// entries are named by index or by their `name`. Whether the keys exist is for the reader to say.
void apply_override(YamlNode& root, const std::string& assignment);

}  // namespace flasheva
