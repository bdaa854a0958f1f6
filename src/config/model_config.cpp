#include "src/config/model_config.h"

#include <cmath>

namespace flasheva {

namespace {

struct Checker {
  const std::string& where;
  ExitCode code;

  void in_range(const char* key, std::int64_t value, std::int64_t low, std::int64_t high) const {
    if (value < low || value > high)
      fail(code, "{}: {} is {}; it must be an integer from {} to {}", where, key, value, low, high);
  }
  void positive(const char* key, double value) const {
    if (!(value > 0) || !std::isfinite(value))
      fail(code, "{}: {} is {}; it must be above 0 and finite", where, key, value);
  }
};

void validate_architecture(const ModelConfig& config, const Checker& check) {
  check.in_range("vocab_size", config.vocab_size, 1, max_tokens);
  check.in_range("hidden_size", config.hidden_size, 1, max_layer_size);
  check.in_range("num_hidden_layers", config.num_hidden_layers, 1, max_layers);
  check.in_range("num_attention_heads", config.num_attention_heads, 1, max_layer_size);
  check.in_range("intermediate_size", config.intermediate_size, 1, max_layer_size);
  check.in_range("max_position_embeddings", config.max_position_embeddings, 1, max_tokens);
  check.positive("rotary_emb_base", config.rotary_emb_base);
  check.positive("layer_norm_eps", config.layer_norm_eps);
  check.positive("initializer_range", config.initializer_range);
  if (config.hidden_size % config.num_attention_heads != 0)
    fail(check.code, "{}: hidden_size {} is not a multiple of num_attention_heads {}", check.where,
         config.hidden_size, config.num_attention_heads);
  if (!(config.rotary_pct > 0 && config.rotary_pct <= 1))
    fail(check.code, "{}: rotary_pct is {}; it must be above 0 and at most 1", check.where,
         config.rotary_pct);
  if (config.rotary_dims() % 2 != 0)
    fail(check.code, "{}: rotary_pct {} turns {} of a head's {} dimensions; the number must be even",
         check.where, config.rotary_pct, config.rotary_dims(), config.head_dim());
  if (config.bos_token_id) check.in_range("bos_token_id", *config.bos_token_id, 0, config.vocab_size - 1);
  if (config.eos_token_id) check.in_range("eos_token_id", *config.eos_token_id, 0, config.vocab_size - 1);
}

void validate_layer(const LayerAttention& layer, std::size_t number, const Checker& check) {
  if (layer.kind == AttentionKind::full) return;
  if (layer.window < 1 || layer.window > max_tokens)
    fail(check.code, "{}: layer {}: window is {}; it must be an integer from 1 to {}", check.where, number,
         layer.window, max_tokens);
  if (layer.kind != AttentionKind::eva) return;
  if (layer.chunk < 1 || layer.window % layer.chunk != 0)
    fail(check.code, "{}: layer {}: window {} is not a multiple of chunk {}", check.where, number,
         layer.window, layer.chunk);
}

}  // namespace

void validate(const ModelConfig& config, const std::string& where, ExitCode code) {
  const Checker check{where, code};
  validate_architecture(config, check);
  if (!config.attention.empty() &&
      static_cast<std::int64_t>(config.attention.size()) != config.num_hidden_layers)
    fail(code, "{}: attention is given for {} layers; num_hidden_layers is {}", where,
         config.attention.size(), config.num_hidden_layers);
  for (std::size_t layer = 0; layer < config.attention.size(); ++layer)
    validate_layer(config.attention[layer], layer, check);
  check.positive("noise_clip", config.eva.noise_clip);
}

}  // namespace flasheva
