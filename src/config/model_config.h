// What a model is: the architecture and each layer's attention. Filled from a model folder's config.json
// (io/model_folder.h) or from the YAML of a run (config.h); names are those of config.json.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/ops.h"
#include "src/core/error.h"

namespace flasheva {

// Far beyond any model that fits a machine, and small enough that no product of sizes overflows 64 bits.
constexpr std::int64_t max_layer_size = std::int64_t{1} << 20;  // hidden_size, intermediate_size
constexpr std::int64_t max_layers = std::int64_t{1} << 12;
constexpr std::int64_t max_tokens = (std::int64_t{1} << 31) - 1;  // ids and positions are int32

// One layer's attention: its kind and geometry.
struct LayerAttention {
  AttentionKind kind = AttentionKind::full;
  std::int64_t window = 256;  // W, tokens: kinds sliding and eva
  std::int64_t chunk = 16;    // P, tokens: kind eva
  bool operator==(const LayerAttention&) const = default;
};

// What all EVA layers of a model share.
struct EvaConfig {
  WindowKind window_kind = WindowKind::block;
  ChunkVisibility chunk_visibility = ChunkVisibility::outside_window;
  Adapter adapter = Adapter::linear;
  Proposal proposal = Proposal::qk;
  ChunkBias chunk_bias = ChunkBias::none;
  float noise_clip = 2.0f;
  bool operator==(const EvaConfig&) const = default;
};

struct ModelConfig {
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t max_position_embeddings = 2048;
  double rotary_pct = 0.25;
  double rotary_emb_base = 10000;
  double layer_norm_eps = 1e-5;
  double initializer_range = 0.02;
  bool use_parallel_residual = true;
  std::optional<std::int64_t> bos_token_id, eos_token_id;

  std::vector<LayerAttention> attention;  // one entry a layer
  EvaConfig eva;
  LayerAttention shared_geometry;  // the window and chunk that config.json's `eva` names; layers may differ

  std::int64_t head_dim() const { return hidden_size / num_attention_heads; }
  // Dimensions of each head that the rotary embedding turns; even.
  std::int64_t rotary_dims() const {
    return static_cast<std::int64_t>(static_cast<double>(head_dim()) * rotary_pct);
  }
  // What the queries of a layer see.
  Visibility visibility(const LayerAttention& layer) const {
    return {layer.kind, eva.window_kind, eva.chunk_visibility, layer.window, layer.chunk};
  }
  Visibility visibility(std::int64_t layer) const {
    return visibility(attention[static_cast<std::size_t>(layer)]);
  }
  bool full_attention_everywhere() const {
    for (const LayerAttention& layer : attention)
      if (layer.kind != AttentionKind::full) return false;
    return true;
  }
};

// Throws Error{usage or data as given} naming the first impossible value ("hidden_size 100 is not a multiple
// of num_attention_heads 8"), prefixed with `where` (a file and perhaps a key). An empty `attention` is not
// resolved yet and passes.
void validate(const ModelConfig& config, const std::string& where, ExitCode code);

}  // namespace flasheva
