#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "src/config/config.h"

namespace flasheva {

using nlohmann::json;

namespace {

json to_json(const ModelConfig& model) {
  json out = {{"vocab_size", model.vocab_size},
              {"hidden_size", model.hidden_size},
              {"num_hidden_layers", model.num_hidden_layers},
              {"num_attention_heads", model.num_attention_heads},
              {"intermediate_size", model.intermediate_size},
              {"rotary_pct", model.rotary_pct},
              {"rotary_emb_base", model.rotary_emb_base},
              {"layer_norm_eps", model.layer_norm_eps},
              {"use_parallel_residual", model.use_parallel_residual},
              {"initializer_range", model.initializer_range},
              {"max_position_embeddings", model.max_position_embeddings}};
  if (model.bos_token_id) out["bos_token_id"] = *model.bos_token_id;
  if (model.eos_token_id) out["eos_token_id"] = *model.eos_token_id;
  return out;
}

json to_json(const LayerOverride& layer) {
  json out = json::object();
  if (layer.kind) out["kind"] = to_string(*layer.kind);
  if (layer.window) out["window"] = *layer.window;
  if (layer.chunk) out["chunk"] = *layer.chunk;
  return out;
}

json to_json(const AttentionSettings& attention) {
  json layers = json::object();
  for (const auto& [number, layer] : attention.layers) layers[std::to_string(number)] = to_json(layer);
  return {{"default", to_string(attention.default_kind)},
          {"layers", layers},
          {"window", attention.window},
          {"chunk", attention.chunk},
          {"window_kind", to_string(attention.eva.window_kind)},
          {"chunk_visibility", to_string(attention.eva.chunk_visibility)},
          {"adapter", to_string(attention.eva.adapter)},
          {"proposal", to_string(attention.eva.proposal)},
          {"chunk_bias", to_string(attention.eva.chunk_bias)},
          {"noise", {{"enabled", attention.noise_enabled}, {"clip", attention.eva.noise_clip}}}};
}

json to_json(const ModelSection& model) {
  json out = json::object();
  if (model.architecture) out["architecture"] = to_json(*model.architecture);
  if (!model.architecture) out["from"] = model.from.string();
  if (model.attention) out["attention"] = to_json(*model.attention);
  return out;
}

json to_json(const DataSection& data) {
  json out = {
      {"train", data.train.string()}, {"sequence_length", data.sequence_length}, {"shuffle", data.shuffle}};
  if (!data.validation.empty()) out["validation"] = data.validation.string();
  return out;
}

json to_json(const BatchSection& batch) {
  return {{"sequences", batch.sequences}, {"micro", batch.micro}, {"recompute", to_string(batch.recompute)}};
}

json to_json(const PhaseConfig& phase) {
  const OptimizerConfig& optimizer = phase.optimizer;
  const ScheduleConfig& schedule = phase.schedule;
  json out = {{"name", phase.name},
              {"steps", phase.steps},
              {"precision", to_string(phase.precision)},
              {"train", phase.train},
              {"optimizer",
               {{"lr", optimizer.lr},
                {"betas", json::array({optimizer.beta1, optimizer.beta2})},
                {"eps", optimizer.eps},
                {"weight_decay", optimizer.weight_decay},
                {"clip", optimizer.clip}}},
              {"schedule",
               {{"kind", to_string(schedule.kind)},
                {"warmup", schedule.warmup},
                {"min_lr_ratio", schedule.min_lr_ratio}}}};
  if (phase.tf32) out["tf32"] = true;
  if (phase.precision == Precision::fp16)
    out["loss_scale"] = {{"initial", phase.loss_scale.initial},
                         {"growth_interval", phase.loss_scale.growth_interval},
                         {"hysteresis", phase.loss_scale.hysteresis},
                         {"minimum", phase.loss_scale.minimum}};
  return out;
}

// What a resumed run may have different: what changes neither the losses nor the weights, but for the order
// in which sums are added.
bool may_differ(const std::string& key) {
  static constexpr std::array free_keys = {"run.device",
                                           "batch.micro",
                                           "batch.recompute",
                                           "checkpoint",
                                           "evaluate",
                                           "log",
                                           "distributed.timeout",
                                           "distributed.shard_optimizer",
                                           "distributed.shard_gradients",
                                           "guards.max_skips",
                                           "guards.weights_every"};
  return std::find(free_keys.begin(), free_keys.end(), key) != free_keys.end();
}

const json* member(const json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

std::string difference(const json* before, const json* now, const std::string& path);

std::string difference_of_objects(const json& before, const json& now, const std::string& path) {
  std::set<std::string> keys;
  for (const auto& entry : before.items()) keys.insert(entry.key());
  for (const auto& entry : now.items()) keys.insert(entry.key());
  for (const std::string& key : keys) {
    const std::string name = path.empty() ? key : path + "." + key;
    if (may_differ(name)) continue;
    const std::string found = difference(member(before, key), member(now, key), name);
    if (!found.empty()) return found;
  }
  return "";
}

std::string difference_of_arrays(const json& before, const json& now, const std::string& path) {
  for (std::size_t i = 0; i < std::max(before.size(), now.size()); ++i) {
    const std::string found = difference(i < before.size() ? &before[i] : nullptr,
                                         i < now.size() ? &now[i] : nullptr, path + "." + std::to_string(i));
    if (!found.empty()) return found;
  }
  return "";
}

// nullptr: the key is not there.
std::string difference(const json* before, const json* now, const std::string& path) {
  if (before == nullptr || now == nullptr) return path;
  if (before->is_object() && now->is_object()) return difference_of_objects(*before, *now, path);
  if (before->is_array() && now->is_array()) return difference_of_arrays(*before, *now, path);
  return *before == *now ? "" : path;
}

}  // namespace

json to_json(const Config& config) {
  json phases = json::array();
  for (const PhaseConfig& phase : config.phases) phases.push_back(to_json(phase));
  return {{"run",
           {{"name", config.run.name},
            {"output", config.run.output.string()},
            {"seed", config.run.seed},
            {"device", to_string(config.run.device)}}},
          {"model", to_json(config.model)},
          {"data", to_json(config.data)},
          {"batch", to_json(config.batch)},
          {"phases", phases},
          {"checkpoint", {{"every", config.checkpoint.every}, {"keep", config.checkpoint.keep}}},
          {"evaluate", {{"every", config.evaluate.every}, {"batches", config.evaluate.batches}}},
          {"distributed",
           {{"timeout", config.distributed.timeout},
            {"shard_optimizer", config.distributed.shard_optimizer},
            {"shard_gradients", config.distributed.shard_gradients},
            {"reduce_dtype", to_string(config.distributed.reduce_dtype)}}},
          {"guards",
           {{"max_skips", config.guards.max_skips},
            {"spike_action", to_string(config.guards.spike_action)},
            {"spike_window", config.guards.spike_window},
            {"spike_threshold", config.guards.spike_threshold},
            {"weights_every", config.guards.weights_every}}},
          {"log",
           {{"every", config.log.every},
            {"layers_every", config.log.layers_every},
            {"tensorboard", config.log.tensorboard}}}};
}

std::string first_difference(const json& before, const json& now) { return difference(&before, &now, ""); }

}  // namespace flasheva
