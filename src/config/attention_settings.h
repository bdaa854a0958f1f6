// model.attention as YAML.
#pragma once

#include <string>

#include "src/config/config.h"
#include "src/config/yaml_node.h"

namespace flasheva {

// `path` is the section's dotted name in messages.
AttentionSettings read_attention(const YamlNode& node, const std::string& path);

}  // namespace flasheva
