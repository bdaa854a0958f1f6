"""GPT-NeoX with FlashEVA attention in plain PyTorch, for Hugging Face transformers 4.57 and 5.

A query attends exactly to the tokens of its window and, through one compressed key and value each, to the
chunks before it (n, m tokens; c chunks of P tokens; W window; d head dimension; s = 1/sqrt(d)):

    o_n = softmax over [ s q_n.k_m , m in a(n)..n ;  s q_n.kappa_c + bias , c < visible_chunks(n) ]
          applied to [ v_m ; beta_c ]

    kbar_c, qbar_c = means of k, q over chunk c        kappa_c = A_k(kbar_c)
    omega_c = mu_c + clip(eps_c)                       mu_c = A_q(qbar_c) + kappa_c | kappa_c | 0
    p_m = softmax over m in chunk of s (omega_c . k_m - |k_m|^2 / 2),   beta_c = sum_m p_m v_m

There is no cache: `generate` runs the whole forward again for every token, whatever `use_cache` says.
Shapes: B sequences, T tokens, H heads, D = H d hidden size, C = T // P complete chunks.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_flasheva_gpt_neox import FlashEvaGPTNeoXConfig

SMALLEST_QUERY_BLOCK = 128  # queries attended at a time, at least: smaller blocks only cost calls


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


# --- which tokens and chunks a query sees ---------------------------------------------------------


# n is one query, an int, or a tensor of queries.


def first_token(n, kind: str, eva: dict):
    """a(n): the first token that query n attends to exactly; the last is n itself."""
    window, chunk = eva["window"], eva["chunk"]
    if kind == "full":
        return 0 * n
    if kind == "eva" and eva["window_kind"] == "block":
        return n // window * window
    oldest = (n - window + 1) * (n >= window)
    return oldest if kind == "sliding" else oldest // chunk * chunk


def visible_chunks(n, kind: str, eva: dict):
    """Query n sees the summaries of chunks 0 .. visible_chunks(n) - 1."""
    if kind != "eva":
        return 0 * n
    outside_window = eva["chunk_visibility"] == "outside_window"
    return (first_token(n, kind, eva) if outside_window else n) // eva["chunk"]


# --- attention ------------------------------------------------------------------------------------


class AdapterProjection(nn.Linear):
    """A linear layer that starts as the identity."""


class ChunkSummary(nn.Module):
    """Compressed key kappa and value beta of every complete chunk; holds the EVA parameters of a layer."""

    def __init__(self, eva: dict, heads: int, head_dim: int):
        super().__init__()
        self.eva = eva
        if eva["adapter"] == "learned":
            self.mu = nn.Parameter(torch.zeros(heads, head_dim))
            self.phi = nn.Parameter(torch.zeros(heads, head_dim))
        elif eva["adapter"] != "none":
            for which in ("key", "query") if eva["proposal"] == "qk" else ("key",):
                setattr(self, f"{which}_proj", AdapterProjection(head_dim, head_dim))
                if eva["adapter"] == "linear_layernorm":
                    setattr(self, f"{which}_norm", nn.LayerNorm(head_dim, eps=1e-5))
        if eva["chunk_bias"] == "learned":
            self.chunk_bias = nn.Parameter(torch.full((heads,), math.log(eva["chunk"])))

    def forward(self, q, k, v):
        """q, k, v (B, H, T, d) -> kappa, beta (B, H, C, d)."""
        P, d = self.eva["chunk"], q.shape[-1]
        C = q.shape[2] // P
        # (B, H, C, P, d)
        q, k, v = (at_least_float32(x[:, :, : C * P].unflatten(2, (C, P))) for x in (q, k, v))
        if self.eva["adapter"] == "learned":
            mu, phi = (p.to(k.dtype)[:, None, None] for p in (self.mu, self.phi))  # (H, 1, 1, d)
            pooling = torch.softmax((k * mu).sum(-1, keepdim=True), dim=-2)
            kappa = (pooling * k).sum(-2)
            omega = phi[:, 0].expand_as(kappa)
        else:
            kappa = self._adapt("key", k.mean(-2))
            omega = torch.zeros_like(kappa) if self.eva["proposal"] == "zero" else kappa
            if self.eva["proposal"] == "qk":
                omega = self._adapt("query", q.mean(-2)) + kappa
        if self.training and self.eva["noise_clip"] > 0:
            omega = omega + torch.randn_like(omega).clamp(-self.eva["noise_clip"], self.eva["noise_clip"])
        logits = d**-0.5 * (k * omega[..., None, :] - 0.5 * k.square()).sum(-1, keepdim=True)
        beta = (torch.softmax(logits, dim=-2) * v).sum(-2)
        return kappa, beta

    def _adapt(self, which: str, x):
        """A_k or A_q of the means x (B, H, C, d), in the type of x."""
        if self.eva["adapter"] == "none":
            return x
        proj = getattr(self, f"{which}_proj")
        x = F.linear(x, proj.weight.to(x.dtype), proj.bias.to(x.dtype))
        if self.eva["adapter"] == "linear_layernorm":
            norm = getattr(self, f"{which}_norm")
            x = F.layer_norm(
                x, norm.normalized_shape, norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps
            )
        return x

    def logit_bias(self, like: torch.Tensor):
        """What is added to the logits of chunks, (H, 1, 1) or (1, 1, 1), in the type of `like`."""
        if self.eva["chunk_bias"] == "learned":
            return self.chunk_bias.to(like.dtype)[:, None, None]
        return like.new_full(
            (1, 1, 1), math.log(self.eva["chunk"]) if self.eva["chunk_bias"] == "log_chunk" else 0.0
        )


def windowed_attention(q, k, v, kind: str, eva: dict, summary: ChunkSummary | None):
    """Attention of one layer, q, k, v (B, H, T, d) -> (B, H, T, d), a block of queries at a time: memory
    grows with block x (window + block + T / P), never with T x T."""
    T = q.shape[2]
    n = torch.arange(T, device=q.device)
    first, visible = first_token(n, kind, eva), visible_chunks(n, kind, eva)
    if kind == "eva":
        kappa, beta = (x.to(q.dtype) for x in summary(q, k, v))
        bias = summary.logit_bias(q)
    block = max(eva["window"], SMALLEST_QUERY_BLOCK)
    out = []
    for start in range(0, T, block):
        rows = slice(start, min(start + block, T))
        begin = first_token(start, kind, eva)
        tokens = n[begin : rows.stop]
        hidden = (tokens > n[rows, None]) | (tokens < first[rows, None])
        mask = q.new_zeros(hidden.shape).masked_fill(hidden, -math.inf)
        keys, values = k[:, :, begin : rows.stop], v[:, :, begin : rows.stop]
        chunks = visible_chunks(rows.stop - 1, kind, eva)
        if chunks > 0:
            hidden = torch.arange(chunks, device=q.device) >= visible[rows, None]
            chunk_mask = bias.expand(-1, *hidden.shape).masked_fill(hidden, -math.inf)
            mask = torch.cat([mask.expand(chunk_mask.shape[0], -1, -1), chunk_mask], -1)[None]
            keys = torch.cat([keys, kappa[:, :, :chunks]], 2)
            values = torch.cat([values, beta[:, :, :chunks]], 2)
        out.append(F.scaled_dot_product_attention(q[:, :, rows], keys, values, attn_mask=mask))
    return torch.cat(out, 2)


def rotary_tables(T: int, config: FlashEvaGPTNeoXConfig, like: torch.Tensor):
    """cos, sin (T, R) of the angle that turns dimensions r and r + R of position t, in float32 at least."""
    dims = int(config.hidden_size // config.num_attention_heads * config.rotary_pct)
    dtype = at_least_float32(like[:0]).dtype
    exponent = torch.arange(0, dims, 2, device=like.device, dtype=dtype) / max(dims, 1)
    frequency = config.rotary_emb_base**-exponent
    angle = torch.arange(T, device=like.device, dtype=dtype)[:, None] * frequency
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def apply_rotary(x, cos, sin):
    """Turns the first 2R dimensions of each head of x (B, H, T, d), half against half."""
    R = cos.shape[-1]
    x1, x2, rest = x[..., :R], x[..., R : 2 * R], x[..., 2 * R :]
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin, rest], -1)


class Attention(nn.Module):
    def __init__(self, config: FlashEvaGPTNeoXConfig, layer: int):
        super().__init__()
        self.heads = config.num_attention_heads
        self.kind = config.attention_layers[layer]
        self.settings = config.eva_of_layer(layer)
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        if self.kind == "eva":
            self.eva = ChunkSummary(self.settings, self.heads, config.hidden_size // self.heads)

    def forward(self, x, cos, sin):
        """x (B, T, D) -> (B, T, D); rows of the projection are ordered per head [q_h | k_h | v_h]."""
        qkv = self.query_key_value(x).unflatten(-1, (self.heads, 3, -1)).transpose(1, 2)  # (B, H, T, 3, d)
        q, k, v = qkv.unbind(3)
        q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
        if self.kind == "full":
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            out = windowed_attention(q, k, v, self.kind, self.settings, getattr(self, "eva", None))
        return self.dense(out.transpose(1, 2).flatten(2))


# --- the model ------------------------------------------------------------------------------------


class MLP(nn.Module):
    def __init__(self, config: FlashEvaGPTNeoXConfig):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.intermediate_size)
        self.dense_4h_to_h = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x):
        return self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(x)))


class Layer(nn.Module):
    def __init__(self, config: FlashEvaGPTNeoXConfig, layer: int):
        super().__init__()
        self.use_parallel_residual = config.use_parallel_residual
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x, cos, sin):
        attended = x + self.attention(self.input_layernorm(x), cos, sin)
        return attended + self.mlp(
            self.post_attention_layernorm(x if self.use_parallel_residual else attended)
        )


class GPTNeoX(nn.Module):
    """Token ids (B, T) -> hidden states (B, T, D): each layer's input and the final LayerNorm's output."""

    def __init__(self, config: FlashEvaGPTNeoXConfig):
        super().__init__()
        self.config = config
        self.embed_in = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, input_ids):
        x = self.embed_in(input_ids)
        cos, sin = rotary_tables(input_ids.shape[1], self.config, x)
        hidden_states = [x]
        for layer in self.layers:
            hidden_states.append(layer(hidden_states[-1], cos, sin))
        return (*hidden_states[:-1], self.final_layer_norm(hidden_states[-1]))


def padding_shift(attention_mask):
    """The place of each row's first real token, (B, 1). Rolled left by it, a row starts with that token:
    positions, windows and chunks count from there, and causality hides the padding, now at the end."""
    if attention_mask.dim() != 2:
        raise ValueError(f"attention_mask must be (batch, tokens), not {tuple(attention_mask.shape)}")
    real = (attention_mask != 0).int()
    starts = real[:, 0] + (real.diff(dim=1) == 1).sum(1)
    if (starts > 1).any():
        raise ValueError(
            "attention_mask has a hole: real tokens must follow one another (pad prompts on the left)"
        )
    return real.argmax(1, keepdim=True)


def rolled(x, shift):
    """Row b of x (B, T, ...) rolled left by shift[b]."""
    T = x.shape[1]
    index = (torch.arange(T, device=x.device) + shift) % T  # (B, T)
    return x.gather(1, index.view(*index.shape, *[1] * (x.dim() - 2)).expand_as(x))


class FlashEvaGPTNeoXPreTrainedModel(PreTrainedModel):
    config_class = FlashEvaGPTNeoXConfig
    base_model_prefix = "gpt_neox"
    _no_split_modules = ["Layer"]
    _supports_sdpa = True

    def _init_weights(self, module):
        """Weights N(0, initializer_range), biases 0, norms 1; adapters identity, learned pooling uniform."""
        if isinstance(module, AdapterProjection):
            nn.init.eye_(module.weight)
        elif isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, ChunkSummary):
            for name, parameter in module.named_parameters():
                if name == "chunk_bias":
                    nn.init.constant_(parameter, math.log(module.eva["chunk"]))
                elif name in ("mu", "phi"):
                    nn.init.zeros_(parameter)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)


class FlashEvaGPTNeoXForCausalLM(FlashEvaGPTNeoXPreTrainedModel, GenerationMixin):
    def __init__(self, config: FlashEvaGPTNeoXConfig):
        super().__init__(config)
        self.gpt_neox = GPTNeoX(config)
        self.embed_out = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.gpt_neox.embed_in

    def set_input_embeddings(self, embeddings):
        self.gpt_neox.embed_in = embeddings

    def get_output_embeddings(self):
        return self.embed_out

    def set_output_embeddings(self, embeddings):
        self.embed_out = embeddings

    def forward(
        self,
        input_ids,
        attention_mask=None,
        position_ids=None,
        labels=None,
        use_cache=None,
        output_hidden_states=None,
        return_dict=None,
        logits_to_keep=0,
        **kwargs,
    ):
        """Logits (B, T, V) of input_ids (B, T); attention_mask (B, T) is 0 at padding, left or right.
        `labels` (B, T) are input_ids themselves, -100 where not counted; `use_cache` changes nothing."""
        if position_ids is not None:
            raise ValueError("position_ids are not taken: positions count from each row's first real token")
        shift = None if attention_mask is None else padding_shift(attention_mask)
        hidden_states = self.gpt_neox(input_ids if shift is None else rolled(input_ids, shift))
        if shift is not None:
            hidden_states = tuple(rolled(x, -shift) for x in hidden_states)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.embed_out(hidden_states[-1][:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, hidden_states=hidden_states if output_hidden_states else None
        )

    # --- generation without a cache ---

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, logits_to_keep=None, **kwargs):
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "logits_to_keep": logits_to_keep or 0,
        }
