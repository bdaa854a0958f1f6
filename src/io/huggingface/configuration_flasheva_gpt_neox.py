"""Configuration of GPT-NeoX with FlashEVA attention, for Hugging Face transformers 4.57 and 5."""

from transformers import PretrainedConfig

ATTENTION_KINDS = ("full", "sliding", "eva")
EVA_DEFAULTS = {
    "window": 256,  # W, tokens attended exactly; the window of `sliding` layers too
    "chunk": 16,  # P, tokens summarised by one key and one value
    "window_kind": "block",  # block | sliding
    "chunk_visibility": "outside_window",  # outside_window | all_past
    "adapter": "linear",  # none | linear | linear_layernorm | learned
    "proposal": "qk",  # qk | k | zero
    "chunk_bias": "none",  # none | log_chunk | learned
    "noise_clip": 2.0,  # bound on the Gaussian noise of training; 0: no noise
}


class FlashEvaGPTNeoXConfig(PretrainedConfig):
    """GPT-NeoX's keys and three more: `attention_layers` (the kind of each layer), `eva` (what all layers
    share) and `eva_layers` (by layer number, what differs there: {"3": {"window": 128, "chunk": 8}})."""

    model_type = "flasheva_gpt_neox"

    def __init__(
        self,
        vocab_size=50304,
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        hidden_act="gelu",
        rotary_pct=0.25,
        rotary_emb_base=10000.0,
        rope_parameters=None,
        max_position_embeddings=2048,
        initializer_range=0.02,
        layer_norm_eps=1e-5,
        use_parallel_residual=True,
        use_cache=True,
        attention_layers=None,
        eva=None,
        eva_layers=None,
        tie_word_embeddings=False,
        **kwargs,
    ):
        if rope_parameters is not None:  # as transformers 5 writes rotary_pct and rotary_emb_base
            if rope_parameters.get("rope_type", "default") != "default":
                raise ValueError(
                    f"only rope_type 'default' is supported, not {rope_parameters['rope_type']!r}"
                )
            rotary_pct = rope_parameters.get("partial_rotary_factor", rotary_pct)
            rotary_emb_base = rope_parameters.get("rope_theta", rotary_emb_base)
        if hidden_act != "gelu":
            raise ValueError(f"hidden_act {hidden_act!r} is not supported, only 'gelu'")
        if tie_word_embeddings:
            raise ValueError("tie_word_embeddings is not supported")
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.rotary_pct = rotary_pct
        self.rotary_emb_base = rotary_emb_base
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.use_parallel_residual = use_parallel_residual
        self.use_cache = use_cache
        self.attention_layers = attention_layers or ["eva"] * num_hidden_layers
        self.eva = EVA_DEFAULTS | (eva or {})
        self.eva_layers = eva_layers or {}
        self._check()
        super().__init__(tie_word_embeddings=False, **kwargs)

    def eva_of_layer(self, layer: int) -> dict:
        """The EVA settings of one layer: the shared ones, and over them the layer's own."""
        return self.eva | self.eva_layers.get(str(layer), {})

    def _check(self):
        if len(self.attention_layers) != self.num_hidden_layers:
            layers = len(self.attention_layers)
            raise ValueError(f"attention_layers names {layers} layers, not {self.num_hidden_layers}")
        if unknown := set(self.attention_layers) - set(ATTENTION_KINDS):
            raise ValueError(f"attention_layers: unknown {sorted(unknown)}, not one of {ATTENTION_KINDS}")
        for layer in range(self.num_hidden_layers):
            eva = self.eva_of_layer(layer)
            if unknown := set(eva) - set(EVA_DEFAULTS):
                raise ValueError(f"eva: unknown keys {sorted(unknown)} in layer {layer}")
            window, chunk = eva["window"], eva["chunk"]
            if self.attention_layers[layer] == "eva" and window % chunk != 0:
                raise ValueError(f"window {window} is not a multiple of chunk {chunk} in layer {layer}")
