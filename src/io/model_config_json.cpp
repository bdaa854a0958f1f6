// config.json <-> ModelConfig. Keys that transformers leaves out when they have its defaults have those
// defaults here; sizes have none and must be there.
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/config/config.h"
#include "src/core/error.h"
#include "src/core/text.h"
#include "src/io/model_folder.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

using nlohmann::json;

constexpr const char* plain_type = "gpt_neox";
constexpr const char* flasheva_type = "flasheva_gpt_neox";
constexpr std::size_t max_config_bytes = 16 << 20;

// The keys of one JSON object, typed. A key that is null counts as absent.
class Object {
 public:
  Object(const json& object, const std::string& where) : object_(object), where_(where) {
    if (!object.is_object())
      fail(ExitCode::data, "{}: must be an object, found {}", where, object.type_name());
  }

  const json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  const json& at(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) fail(ExitCode::data, "{}: required key {} is missing", where_, key);
    return *value;
  }
  std::string path_of(const char* key) const { return where_ + ": " + key; }

  std::int64_t integer(const char* key) const { return as_integer(at(key), key); }
  std::int64_t integer(const char* key, std::int64_t absent) const {
    const json* value = find(key);
    return value == nullptr ? absent : as_integer(*value, key);
  }
  double number(const char* key, double absent) const {
    const json* value = find(key);
    if (value != nullptr && !value->is_number()) refuse(key, "a number", *value);
    return value == nullptr ? absent : value->get<double>();
  }
  bool boolean(const char* key, bool absent) const {
    const json* value = find(key);
    if (value != nullptr && !value->is_boolean()) refuse(key, "true or false", *value);
    return value == nullptr ? absent : value->get<bool>();
  }
  std::string text(const char* key, const char* absent) const {
    const json* value = find(key);
    if (value != nullptr && !value->is_string()) refuse(key, "text", *value);
    return value == nullptr ? absent : value->get<std::string>();
  }
  // An id, or the first of a list of ids.
  std::optional<std::int64_t> token_id(const char* key) const {
    const json* value = find(key);
    if (value != nullptr && value->is_array()) value = value->empty() ? nullptr : &value->front();
    return value == nullptr ? std::nullopt : std::optional(as_integer(*value, key));
  }
  void allow_only(const std::vector<std::string>& known) const {
    for (const auto& [key, value] : object_.items())
      if (std::find(known.begin(), known.end(), key) == known.end())
        fail(ExitCode::data, "{}: unknown key \"{}\"{}; known are {}", where_, printable(key),
             did_you_mean(key, known), fmt::join(known, ", "));
  }

  static std::string did_you_mean(const std::string& name, const std::vector<std::string>& known) {
    const std::string nearest = nearest_name(name, known);
    return nearest.empty() ? "" : ", did you mean " + nearest + "?";
  }

 private:
  [[noreturn]] void refuse(const char* key, const char* expected, const json& found) const {
    fail(ExitCode::data, "{}: {} must be {}, found {}", where_, key, expected, found.type_name());
  }
  std::int64_t as_integer(const json& value, const char* key) const {
    if (!value.is_number_integer()) refuse(key, "an integer", value);
    if (value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX)
      fail(ExitCode::data, "{}: {} is {}, too large", where_, key, value.get<std::uint64_t>());
    return value.get<std::int64_t>();
  }

  const json& object_;
  std::string where_;
};

template <class Enum>
Enum enum_of(const json& value, const std::string& where) {
  const std::vector<std::string> known = names_of<Enum>();
  if (!value.is_string())
    fail(ExitCode::data, "{}: must be one of {}, found {}", where, fmt::join(known, ", "), value.type_name());
  const auto name = value.get<std::string>();
  const std::optional<Enum> parsed = parse_name<Enum>(name);
  if (!parsed)
    fail(ExitCode::data, "{}: unknown value \"{}\"{}; known are {}", where, printable(name),
         Object::did_you_mean(name, known), fmt::join(known, ", "));
  return *parsed;
}

template <class Enum>
void read_enum(Enum& out, const Object& object, const char* key) {
  if (const json* value = object.find(key)) out = enum_of<Enum>(*value, object.path_of(key));
}

// --- what is not built, and would change the results ---------------------------------------------------

void refuse_unsupported(const Object& keys, const std::string& where, bool training) {
  if (const std::string act = keys.text("hidden_act", "gelu"); act != "gelu")
    fail(ExitCode::data, "{}: hidden_act \"{}\" is not supported, only gelu (erf) is", where, printable(act));
  if (keys.boolean("tie_word_embeddings", false))
    fail(ExitCode::data,
         "{}: tie_word_embeddings true is not supported; save the model with a head of its own", where);
  if (!keys.boolean("attention_bias", true))
    fail(ExitCode::data, "{}: attention_bias false is not supported", where);
  for (const char* key : {"attention_dropout", "hidden_dropout"})
    if (const double dropout = keys.number(key, 0); training && dropout != 0)
      fail(ExitCode::data, "{}: {} {} is not supported in training; set it to 0", where, key, dropout);
}

void refuse_rope_scaling(const Object& keys, const char* section) {
  const json* value = keys.find(section);
  if (value == nullptr) return;
  const Object rope(*value, keys.path_of(section));
  for (const char* key : {"rope_type", "type"})  // transformers 4 began with `type`
    if (const std::string type = rope.text(key, "default"); type != "default")
      fail(ExitCode::data, "{}: {} \"{}\" is not supported, only default is", keys.path_of(section), key,
           printable(type));
}

// --- rotary embedding: transformers 4 writes two keys, transformers 5 an object ------------------------

void read_rotary(ModelConfig& config, const Object& keys, const std::string& where) {
  refuse_rope_scaling(keys, "rope_scaling");
  refuse_rope_scaling(keys, "rope_parameters");
  config.rotary_pct = keys.number("rotary_pct", config.rotary_pct);
  config.rotary_emb_base = keys.number("rotary_emb_base", config.rotary_emb_base);
  const json* value = keys.find("rope_parameters");
  if (value == nullptr) return;
  const Object rope(*value, keys.path_of("rope_parameters"));
  const double pct = rope.number("partial_rotary_factor", config.rotary_pct);
  const double base = rope.number("rope_theta", config.rotary_emb_base);
  if ((keys.find("rotary_pct") != nullptr && pct != config.rotary_pct) ||
      (keys.find("rotary_emb_base") != nullptr && base != config.rotary_emb_base))
    fail(ExitCode::data,
         "{}: rope_parameters (partial_rotary_factor {}, rope_theta {}) contradict rotary_pct {} and "
         "rotary_emb_base {}",
         where, pct, base, config.rotary_pct, config.rotary_emb_base);
  config.rotary_pct = pct;
  config.rotary_emb_base = base;
}

// --- attention -----------------------------------------------------------------------------------------

void read_shared_eva(ModelConfig& config, const json& value, const std::string& where) {
  const Object eva(value, where);
  eva.allow_only({"window", "chunk", "window_kind", "chunk_visibility", "adapter", "proposal", "chunk_bias",
                  "noise_clip"});
  config.shared_geometry.window = eva.integer("window", config.shared_geometry.window);
  config.shared_geometry.chunk = eva.integer("chunk", config.shared_geometry.chunk);
  read_enum(config.eva.window_kind, eva, "window_kind");
  read_enum(config.eva.chunk_visibility, eva, "chunk_visibility");
  read_enum(config.eva.adapter, eva, "adapter");
  read_enum(config.eva.proposal, eva, "proposal");
  read_enum(config.eva.chunk_bias, eva, "chunk_bias");
  config.eva.noise_clip = static_cast<float>(eva.number("noise_clip", config.eva.noise_clip));
}

std::size_t layer_number(const std::string& key, std::size_t layers, const std::string& where) {
  for (std::size_t layer = 0; layer < layers; ++layer)
    if (key == std::to_string(layer)) return layer;
  fail(ExitCode::data, "{}: unknown layer \"{}\"; layers are 0 to {}", where, printable(key), layers - 1);
}

// {"3": {"window": 128, "chunk": 8}}
void read_eva_layers(ModelConfig& config, const json& value, const std::string& where) {
  Object(value, where);  // is one
  for (const auto& [key, geometry] : value.items()) {
    LayerAttention& layer = config.attention[layer_number(key, config.attention.size(), where)];
    const Object keys(geometry, where + ": " + key);
    keys.allow_only({"window", "chunk"});
    layer.window = keys.integer("window", layer.window);
    layer.chunk = keys.integer("chunk", layer.chunk);
  }
}

void read_attention(ModelConfig& config, const Object& keys, const std::string& where) {
  if (const json* eva = keys.find("eva")) read_shared_eva(config, *eva, keys.path_of("eva"));
  const json& kinds = keys.at("attention_layers");
  if (!kinds.is_array() || static_cast<std::int64_t>(kinds.size()) != config.num_hidden_layers)
    fail(ExitCode::data, "{}: attention_layers must be a list of num_hidden_layers {} names, found {}", where,
         config.num_hidden_layers, kinds.is_array() ? std::to_string(kinds.size()) : kinds.type_name());
  for (std::size_t layer = 0; layer < kinds.size(); ++layer) {
    config.attention.push_back(config.shared_geometry);
    config.attention.back().kind = enum_of<AttentionKind>(
        kinds[layer], fmt::format("{}: layer {}", keys.path_of("attention_layers"), layer));
  }
  if (const json* layers = keys.find("eva_layers"))
    read_eva_layers(config, *layers, keys.path_of("eva_layers"));
}

void read_layers(ModelConfig& config, const Object& keys, const std::string& where) {
  const std::string type = keys.at("model_type").is_string() ? keys.at("model_type").get<std::string>() : "";
  if (type == flasheva_type) return read_attention(config, keys, where);
  if (type != plain_type)
    fail(ExitCode::data, "{}: model_type \"{}\" is not supported; {} and {} are", where, printable(type),
         plain_type, flasheva_type);
  for (const char* key : {"attention_layers", "eva", "eva_layers"})
    if (keys.find(key) != nullptr)
      fail(ExitCode::data, "{}: {} needs model_type {}, found {}", where, key, flasheva_type, plain_type);
  constexpr std::int64_t more_than_valid = 1 << 16;  // validate() names the number
  config.attention.assign(std::clamp<std::int64_t>(config.num_hidden_layers, 0, more_than_valid),
                          LayerAttention());
}

// --- writing -------------------------------------------------------------------------------------------

json eva_to_json(const ModelConfig& config) {
  return {{"window", config.shared_geometry.window},
          {"chunk", config.shared_geometry.chunk},
          {"window_kind", to_string(config.eva.window_kind)},
          {"chunk_visibility", to_string(config.eva.chunk_visibility)},
          {"adapter", to_string(config.eva.adapter)},
          {"proposal", to_string(config.eva.proposal)},
          {"chunk_bias", to_string(config.eva.chunk_bias)},
          {"noise_clip", config.eva.noise_clip}};
}

// What differs from the shared geometry, of the layers that have one.
json eva_layers_to_json(const ModelConfig& config) {
  json layers = json::object();
  for (std::size_t i = 0; i < config.attention.size(); ++i) {
    const LayerAttention& layer = config.attention[i];
    if (layer.kind == AttentionKind::full) continue;
    if (layer.window != config.shared_geometry.window) layers[std::to_string(i)]["window"] = layer.window;
    if (layer.kind == AttentionKind::eva && layer.chunk != config.shared_geometry.chunk)
      layers[std::to_string(i)]["chunk"] = layer.chunk;
  }
  return layers;
}

void add_attention(json& out, const ModelConfig& config) {
  out["model_type"] = flasheva_type;
  out["architectures"] = {"FlashEvaGPTNeoXForCausalLM"};
  out["auto_map"] = {{"AutoConfig", "configuration_flasheva_gpt_neox.FlashEvaGPTNeoXConfig"},
                     {"AutoModelForCausalLM", "modeling_flasheva_gpt_neox.FlashEvaGPTNeoXForCausalLM"}};
  for (const LayerAttention& layer : config.attention)
    out["attention_layers"].push_back(to_string(layer.kind));
  out["eva"] = eva_to_json(config);
  if (json layers = eva_layers_to_json(config); !layers.empty()) out["eva_layers"] = std::move(layers);
}

json optional_id(const std::optional<std::int64_t>& id) { return id ? json(*id) : json(); }

}  // namespace

ModelConfig model_config_from_json(const json& content, const std::string& where, bool training) {
  const Object keys(content, where);
  ModelConfig config;
  config.vocab_size = keys.integer("vocab_size");
  config.hidden_size = keys.integer("hidden_size");
  config.num_hidden_layers = keys.integer("num_hidden_layers");
  config.num_attention_heads = keys.integer("num_attention_heads");
  config.intermediate_size = keys.integer("intermediate_size");
  config.max_position_embeddings = keys.integer("max_position_embeddings", config.max_position_embeddings);
  config.layer_norm_eps = keys.number("layer_norm_eps", config.layer_norm_eps);
  config.initializer_range = keys.number("initializer_range", config.initializer_range);
  config.use_parallel_residual = keys.boolean("use_parallel_residual", config.use_parallel_residual);
  config.bos_token_id = keys.token_id("bos_token_id");
  config.eos_token_id = keys.token_id("eos_token_id");
  refuse_unsupported(keys, where, training);
  read_rotary(config, keys, where);
  read_layers(config, keys, where);
  validate(config, where, ExitCode::data);
  return config;
}

namespace {

// Says what stands there instead.
[[noreturn]] void fail_without_config(const fs::path& folder) {
  const std::string name = folder.string();
  if (!fs::exists(folder))
    fail(ExitCode::data, "{}: no such folder; give a model folder on this machine, nothing is downloaded",
         name);
  if (!fs::is_directory(folder))
    fail(ExitCode::data, "{}: a file; give the model folder, the one that has config.json", name);
  if (fs::exists(folder / "model" / "config.json"))
    fail(ExitCode::data, "{}: the folder of a run; its model is {}", name, (folder / "model").string());
  if (fs::exists(folder / "checkpoints"))
    fail(ExitCode::data,
         "{}: the folder of a run that has not finished; give one of its checkpoints, {}/step-...", name,
         (folder / "checkpoints").string());
  fail(ExitCode::data, "{}: not a model folder: it has no config.json", name);
}

}  // namespace

ModelConfig read_model_config(const fs::path& folder, bool training) {
  const fs::path path = folder / "config.json";
  std::error_code unknown;  // what may not be looked at may be there
  if (!fs::exists(path, unknown) && !unknown) fail_without_config(folder);
  json content;
  try {
    content = json::parse(read_text_file(path, max_config_bytes));
  } catch (const json::exception&) {
    fail(ExitCode::data, "{}: not valid JSON", path.string());
  }
  return model_config_from_json(content, path.string(), training);
}

json model_config_to_json(const ModelConfig& config, const std::string& torch_dtype) {
  json out = {{"model_type", plain_type},
              {"architectures", {"GPTNeoXForCausalLM"}},
              {"vocab_size", config.vocab_size},
              {"hidden_size", config.hidden_size},
              {"num_hidden_layers", config.num_hidden_layers},
              {"num_attention_heads", config.num_attention_heads},
              {"intermediate_size", config.intermediate_size},
              {"max_position_embeddings", config.max_position_embeddings},
              {"hidden_act", "gelu"},
              {"layer_norm_eps", config.layer_norm_eps},
              {"initializer_range", config.initializer_range},
              {"use_parallel_residual", config.use_parallel_residual},
              {"attention_bias", true},
              {"tie_word_embeddings", false},
              {"rotary_pct", config.rotary_pct},  // transformers 4
              {"rotary_emb_base", config.rotary_emb_base},
              {"bos_token_id", optional_id(config.bos_token_id)},
              {"eos_token_id", optional_id(config.eos_token_id)},
              {"torch_dtype", torch_dtype}};
  out["rope_parameters"] = {{"rope_type", "default"},  // transformers 5
                            {"rope_theta", config.rotary_emb_base},
                            {"partial_rotary_factor", config.rotary_pct}};
  if (!config.full_attention_everywhere()) add_attention(out, config);
  return out;
}

}  // namespace flasheva
