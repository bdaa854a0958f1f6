#include "src/config/yaml_node.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>
#include <utility>

#include "src/core/error.h"
#include "src/core/text.h"

namespace flasheva {

std::string Place::text() const {
  return in_override() ? *source : fmt::format("{}:{}:{}", *source, line, column);
}

const YamlNode* YamlNode::find(const std::string& key) const {
  for (std::size_t i = 0; i < keys.size(); ++i)
    if (keys[i].kind == Kind::scalar && keys[i].scalar == key) return &items[i];
  return nullptr;
}

namespace {

// Deeper than any section of a configuration.
constexpr std::size_t max_depth = 16;

// Builds the tree from the parser's events.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(const std::string& source, bool in_override)
      : source_(std::make_shared<const std::string>(source)), in_override_(in_override) {}

  bool complete() const { return complete_; }
  YamlNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (complete_) refuse(mark, "a second document begins; a configuration is one");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    deliver(make(YamlNode::Kind::null, mark, "", anchor));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse(mark, alias_refusal); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    YamlNode node = make(YamlNode::Kind::scalar, mark, tag, anchor);
    node.scalar = value;
    node.quoted = tag == "!";
    deliver(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(make(YamlNode::Kind::list, mark, tag, anchor));
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(make(YamlNode::Kind::map, mark, tag, anchor));
  }
  void OnMapEnd() override { close(); }

  // The place of a mark, whose lines and columns count from 0; a few errors of the parser have none (-1).
  Place place_of(const YAML::Mark& mark) const {
    if (in_override_) return {source_};
    return {source_, std::max(mark.line, 0) + 1, std::max(mark.column, 0) + 1};
  }

  static constexpr const char* alias_refusal =
      "anchors and aliases are not read; quote a value that begins with & or *";

 private:
  [[noreturn]] void refuse(const YAML::Mark& mark, const char* why) const {
    fail(ExitCode::usage, "{}: {}", place_of(mark).text(), why);
  }

  YamlNode make(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag,
                YAML::anchor_t anchor) const {
    if (anchor != 0) refuse(mark, alias_refusal);
    if (!tag.empty() && tag != "?" && tag != "!") refuse(mark, "tags are not read; leave the ! out");
    YamlNode node;
    node.kind = kind;
    node.place = place_of(mark);
    return node;
  }

  void open(YamlNode node) {
    if (open_.size() == max_depth)
      fail(ExitCode::usage, "{}: nested more than {} deep", node.place.text(), max_depth);
    open_.push_back(std::move(node));
  }

  void close() {
    YamlNode node = std::move(open_.back());
    open_.pop_back();
    deliver(std::move(node));
  }

  // Puts a finished node into the innermost open one; a map takes key and value in turn.
  void deliver(YamlNode node) {
    if (open_.empty()) {
      root_ = std::move(node);
      complete_ = true;
      return;
    }
    YamlNode& parent = open_.back();
    const bool is_key = parent.kind == YamlNode::Kind::map && parent.keys.size() == parent.items.size();
    // The parser puts a missing value where the next thing begins, perhaps a line below: point at its key.
    if (!is_key && node.kind == YamlNode::Kind::null && !parent.keys.empty())
      node.place = parent.keys.back().place;
    (is_key ? parent.keys : parent.items).push_back(std::move(node));
  }

  std::shared_ptr<const std::string> source_;
  bool in_override_;
  std::vector<YamlNode> open_;
  YamlNode root_;
  bool complete_ = false;
};

void check_text(const std::string& text, const std::string& source) {
  if (text.size() > max_yaml_bytes)
    fail(ExitCode::usage, "{}: {} of text; a configuration has at most {}", source, format_bytes(text.size()),
         format_bytes(max_yaml_bytes));
  if (!is_valid_utf8(text)) fail(ExitCode::usage, "{}: not UTF-8 text", source);
  const auto is_control = [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\r' && c != '\t') || c == 0x7f;
  };
  const auto control = std::find_if(text.begin(), text.end(), is_control);
  if (control != text.end())
    fail(ExitCode::usage, "{}: control character {} in line {}", source, printable(std::string(1, *control)),
         std::count(text.begin(), control, '\n') + 1);
}

YamlNode parse(const std::string& text, const std::string& source, bool in_override) {
  check_text(text, source);
  TreeBuilder builder(source, in_override);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    const bool alias = error.msg.starts_with(YAML::ErrorMsg::UNKNOWN_ANCHOR);
    fail(ExitCode::usage, "{}: {}", builder.place_of(error.mark).text(),
         alias ? TreeBuilder::alias_refusal : "not YAML: " + printable(error.msg));
  }
  if (!builder.complete()) fail(ExitCode::usage, "{}: empty; a value is expected", source);
  return builder.take();
}

// --- overrides ------------------------------------------------------------------------------------------

// The entry of a list that `name` means: an index or the `name` of an entry.
YamlNode& list_entry(YamlNode& list, const std::string& path, const std::string& name, const Place& place) {
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    const YamlNode* entry_name = list.items[i].find("name");
    if (name == std::to_string(i) || (entry_name != nullptr && entry_name->scalar == name))
      return list.items[i];
  }
  fail(ExitCode::usage, "{}: {} has no entry '{}'; it has {}, counted from 0", place.text(), path,
       printable(name), list.items.size());
}

// The value of a map's key, made where it is not there.
YamlNode& map_entry(YamlNode& map, const std::string& name, const Place& place) {
  for (std::size_t i = 0; i < map.keys.size(); ++i)
    if (map.keys[i].scalar == name) return map.items[i];
  YamlNode key, value;
  key.kind = YamlNode::Kind::scalar;
  key.scalar = name;
  value.kind = YamlNode::Kind::map;  // a section, unless the path ends here
  key.place = value.place = place;
  map.keys.push_back(std::move(key));
  map.items.push_back(std::move(value));
  return map.items.back();
}

}  // namespace

YamlNode parse_yaml(const std::string& text, const std::string& source) { return parse(text, source, false); }

void apply_override(YamlNode& root, const std::string& assignment) {
  const std::string source = fmt::format("override '{}'", printable(assignment));
  const Place place{std::make_shared<const std::string>(source)};
  const std::size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0)
    fail(ExitCode::usage, "{}: expected key=value, as in phases.0.steps=100", source);

  YamlNode* node = &root;
  std::string path;  // of `node`
  std::size_t depth = 0;
  std::istringstream names(assignment.substr(0, equals));
  for (std::string name; std::getline(names, name, '.');) {
    if (++depth > max_depth) fail(ExitCode::usage, "{}: more than {} names", source, max_depth);
    if (node->kind != YamlNode::Kind::map && node->kind != YamlNode::Kind::list)
      fail(ExitCode::usage, "{}: {} is a value, not a section", source, printable(path));
    node = node->kind == YamlNode::Kind::list ? &list_entry(*node, path, name, place)
                                              : &map_entry(*node, name, place);
    path += (path.empty() ? "" : ".") + name;
  }
  *node = parse(assignment.substr(equals + 1), source, true);
}

}  // namespace flasheva
