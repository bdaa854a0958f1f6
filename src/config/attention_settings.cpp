#include "src/config/attention_settings.h"

#include "src/config/yaml_reader.h"
#include "src/core/error.h"

namespace flasheva {

namespace {

// The kind and geometry of a layer: its own where it has one, else that of all layers.
LayerAttention resolve(const AttentionSettings& settings, const LayerOverride& own) {
  return {own.kind.value_or(settings.default_kind), own.window.value_or(settings.window),
          own.chunk.value_or(settings.chunk)};
}

void check_geometry(const LayerAttention& layer, const Place& place, const std::string& path) {
  if (layer.kind == AttentionKind::eva && layer.window % layer.chunk != 0)
    fail_at(place,
            fmt::format("{}: window {} is not a multiple of chunk {}", path, layer.window, layer.chunk));
}

void read_noise(const YamlNode& node, const std::string& path, AttentionSettings& settings) {
  const Section section(node, path, {.required = {}, .optional = {"enabled", "clip"}});
  double clip = settings.eva.noise_clip;
  section.read("enabled", settings.noise_enabled);
  section.read("clip", clip, above_zero);
  settings.eva.noise_clip = static_cast<float>(clip);
}

// `full` or `{kind: eva, window: 128, chunk: 8}`.
LayerOverride read_layer(const YamlNode& node, const std::string& path, const AttentionSettings& settings) {
  LayerOverride layer;
  if (node.kind != YamlNode::Kind::map) {
    layer.kind = read_enum<AttentionKind>(node, path);
    check_geometry(resolve(settings, layer), node.place, path);
    return layer;
  }
  const Section section(node, path, {.required = {}, .optional = {"kind", "window", "chunk"}});
  if (const YamlNode* kind = section.find("kind"))
    layer.kind = read_enum<AttentionKind>(*kind, section.path("kind"));
  section.read("window", layer.window, 1, max_integer);
  section.read("chunk", layer.chunk, 1, max_integer);
  check_geometry(resolve(settings, layer), section.place({"window", "chunk"}), path);
  return layer;
}

void read_layers(const YamlNode& node, const std::string& path, AttentionSettings& settings) {
  check_map(node, path);
  for (std::size_t i = 0; i < node.keys.size(); ++i) {
    YamlNode key = node.keys[i];
    key.quoted = false;  // JSON has no other keys
    const std::int64_t number = read_integer(key, path + ": a layer's number", 0, max_integer);
    const LayerOverride layer = read_layer(node.items[i], fmt::format("{}.{}", path, number), settings);
    if (!settings.layers.emplace(number, layer).second)
      fail_at(key.place, fmt::format("{}: layer {} is given twice", path, number));
  }
}

}  // namespace

AttentionSettings read_attention(const YamlNode& node, const std::string& path) {
  const Section section(node, path,
                        {.required = {},
                         .optional = {"default", "layers", "window", "chunk", "window_kind",
                                      "chunk_visibility", "adapter", "proposal", "chunk_bias", "noise"}});
  AttentionSettings settings;
  section.read("default", settings.default_kind);
  section.read("window", settings.window);
  section.read("chunk", settings.chunk);
  section.read("window_kind", settings.eva.window_kind);
  section.read("chunk_visibility", settings.eva.chunk_visibility);
  section.read("adapter", settings.eva.adapter);
  section.read("proposal", settings.eva.proposal);
  section.read("chunk_bias", settings.eva.chunk_bias);
  if (const YamlNode* noise = section.find("noise")) read_noise(*noise, section.path("noise"), settings);
  check_geometry(resolve(settings, {}), section.place({"window", "chunk"}), path);
  if (const YamlNode* layers = section.find("layers")) read_layers(*layers, section.path("layers"), settings);
  return settings;
}

AttentionSettings parse_attention_settings(const std::string& yaml_text, const std::string& name) {
  return read_attention(parse_yaml(yaml_text, name), "model.attention");
}

void apply_attention(ModelConfig& model, const AttentionSettings& settings, const std::string& where) {
  const LayerAttention shared = resolve(settings, {});
  model.attention.assign(static_cast<std::size_t>(model.num_hidden_layers), shared);
  model.shared_geometry = shared;
  model.eva = settings.eva;
  for (const auto& [number, own] : settings.layers) {
    if (number >= model.num_hidden_layers)
      fail(ExitCode::usage, "{}: model.attention.layers.{}: the model has {} layers, numbered from 0", where,
           number, model.num_hidden_layers);
    model.attention[static_cast<std::size_t>(number)] = resolve(settings, own);
  }
}

}  // namespace flasheva
