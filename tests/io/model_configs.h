// config.json as the tests of model folders take it.
#pragma once

#include <nlohmann/json.hpp>

#include "src/io/model_folder.h"

namespace flasheva {

// A Pythia config.json, as transformers 4 writes it; two layers instead of six.
inline nlohmann::json pythia() {
  return nlohmann::json::parse(R"({
    "architectures": ["GPTNeoXForCausalLM"], "attention_bias": true, "attention_dropout": 0.0, "bos_token_id": 0,
    "classifier_dropout": 0.1, "eos_token_id": 0, "hidden_act": "gelu", "hidden_dropout": 0.0, "hidden_size": 512,
    "initializer_range": 0.02, "intermediate_size": 2048, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048,
    "model_type": "gpt_neox", "num_attention_heads": 8, "num_hidden_layers": 2, "partial_rotary_factor": 0.25,
    "rope_scaling": null, "rope_theta": 10000, "rotary_emb_base": 10000, "rotary_pct": 0.25,
    "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.57.1", "use_cache": true,
    "use_parallel_residual": true, "vocab_size": 50304})");
}

inline nlohmann::json flasheva() {
  nlohmann::json config = pythia();
  config["model_type"] = "flasheva_gpt_neox";
  config["attention_layers"] = {"eva", "sliding"};
  config["eva"] = {{"window", 128}, {"chunk", 8}};
  return config;
}

inline ModelConfig read(const nlohmann::json& config, bool training = false) {
  return model_config_from_json(config, "config.json", training);
}

}  // namespace flasheva
