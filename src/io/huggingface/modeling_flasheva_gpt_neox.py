"""GPT-NeoX with FlashEVA attention in plain PyTorch, for Hugging Face transformers 4.57 and 5.

A query attends exactly to the tokens of its window and, through one compressed key and value each, to the
chunks before it (n, m tokens; c chunks of P tokens; W window; d head dimension; s = 1/sqrt(d)):

    o_n = softmax over [ s q_n.k_m , m in a(n)..n ;  s q_n.kappa_c + bias , c < visible_chunks(n) ]
          applied to [ v_m ; beta_c ]

    kbar_c, qbar_c = means of k, q over chunk c        kappa_c = A_k(kbar_c)
    omega_c = mu_c + clip(eps_c)                       mu_c = A_q(qbar_c) + kappa_c | kappa_c | 0
    p_m = softmax over m in chunk of s (omega_c . k_m - |k_m|^2 / 2),   beta_c = sum_m p_m v_m

Padding, wherever it stands, is taken out before the first layer and put back after the last: what remains of
a row counts from its first real token. Decoding keeps of the past what later queries can still see
(`FlashEvaCache`): keys and values of a window, and kappa and beta of every finished chunk.

Shapes: B sequences, T tokens of a call, S tokens of it and of the cache before it, H heads, D = H d hidden
size, C complete chunks, R rows of which each stands at its own place: B, or 1 where all stand at the same.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Cache, GenerationMixin, PreTrainedModel
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


@dataclass
class Places:
    """Where the T tokens of a call stand in their rows. Counts are Python's own integers: sizes follow from
    them, so that no layer waits for the device to learn one."""

    past: list[int]  # (R,) real tokens of each row before this call
    real: list[int]  # (R,) and in it; they come first, padding after them
    position: torch.Tensor  # (R, T) of each token in its row

    @classmethod
    def of(cls, past: list[int], real: list[int], T: int, device):
        if len(set(past)) == len(set(real)) == 1:
            past, real = past[:1], real[:1]
        position = torch.tensor(past, device=device)[:, None] + torch.arange(T, device=device)
        return cls(past, real, position)

    @property
    def end(self) -> list[int]:
        """(R,) the position of each row's next token."""
        return [past + real for past, real in zip(self.past, self.real)]


def farthest(n: list[int], kind: str, eva: dict) -> int:
    """How many tokens before it a query attends to exactly, at most over the queries n."""
    return max(i - first_token(i, kind, eva) for i in n)


# --- the cache ------------------------------------------------------------------------------------


def take(x, first: list[int], count: int):
    """The `count` columns from first (R,) on of each row of x (B, H, S, d), copied: (B, H, count, d). A
    column beyond the ends is the one at the end."""
    return take_columns(x, torch.tensor(first)[:, None] + torch.arange(count))


def take_columns(x, column):
    """x (B, H, S, d) at the columns (R, N) of each row, copied: (B, H, N, d)."""
    B, H, S, d = x.shape
    column = column.clamp(0, S - 1).to(x.device)
    return x.gather(2, column[:, None, :, None].expand(B, H, -1, d))


class LayerCache:
    """One layer's past, each (B, H, N, d): `k` and `v` of the tokens that later queries attend to, `q` of
    the unfinished chunk, kappa and beta of every finished one. The last column of `q`, `k`, `v` is the last
    real token of its row; columns that a row does not have hold anything, and no query sees them."""

    is_compileable = is_sliding = False

    def __init__(self, kind: str, eva: dict):
        self.kind, self.eva = kind, eva
        self.states = {}

    def update(self, q, k, v, places: Places, summary):
        """Adds a call's q, k, v (B, H, T, d). Gives k, v (B, H, S, d), those of before in front, and kappa,
        beta (B, H, C, d), which are of no use where the layer is not eva."""
        if not self.states:
            self.states = {name: k[:, :, :0].clone() for name in ("q", "k", "v", "kappa", "beta")}
        window = farthest(places.end, self.kind, self.eva)
        k, v = self._append("k", k, places, window), self._append("v", v, places, window)
        if self.kind == "eva":
            q = self._append("q", q, places, max(n % self.eva["chunk"] for n in places.end))
            self._summarise(q, k, v, places, summary)
        return k, v, self.states["kappa"], self.states["beta"]

    def _append(self, name: str, x, places: Places, keep: int):
        """What was kept under `name` and x (B, H, T, d) after it; of that the last `keep` real tokens stay."""
        earlier = self.states[name]
        x = torch.cat([earlier, x], 2)
        self.states[name] = take(x, [earlier.shape[2] + real - keep for real in places.real], keep)
        return x

    def _summarise(self, q, k, v, places: Places, summary):
        """Adds the chunks that this call finished; q, k, v (B, H, any, d) end with its tokens."""
        P, T = self.eva["chunk"], places.position.shape[1]
        before, after = [n // P for n in places.past], [n // P for n in places.end]  # (R,) finished
        new = max(b - a for a, b in zip(before, after))
        if new == 0:
            return
        q, k, v = (take(x, [x.shape[2] - T - n % P for n in places.past], new * P) for x in (q, k, v))
        for name, x in zip(("kappa", "beta"), summary(q, k, v)):
            earlier = self.states[name]
            # Rows with fewer chunks than others have a gap between those of before and those of now.
            chunk = torch.arange(max(after))
            begun = torch.tensor(before)[:, None]
            column = torch.where(chunk < begun, chunk, earlier.shape[2] + (chunk - begun).clamp(max=new - 1))
            self.states[name] = take_columns(torch.cat([earlier, x.to(earlier.dtype)], 2), column)


class FlashEvaCache(Cache):
    """The past of every layer, for `past_key_values`: in `full` layers every token, in `sliding` ones W - 1,
    in `eva` ones at most W + P - 2 tokens and a key and a value for each chunk. Prompts may come in pieces."""

    def __init__(self, config: FlashEvaGPTNeoXConfig):
        kinds = config.attention_layers
        super().__init__(layers=[LayerCache(kind, config.eva_of_layer(i)) for i, kind in enumerate(kinds)])
        self.reset()

    def reset(self):
        self.columns = 0  # of input_ids so far, padding included
        self.tokens = None  # (B,) real ones of each row
        for layer in self.layers:
            layer.states = {}

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.columns

    def advance(self, real: list[int], T: int, device) -> Places:
        """Begins a call of T columns of which each row has real (B,) tokens."""
        past = self.tokens or [0] * len(real)
        if len(past) != len(real):
            raise ValueError(f"past_key_values hold {len(past)} sequences, input_ids has {len(real)}")
        self.tokens, self.columns = [a + b for a, b in zip(past, real)], self.columns + T
        return Places.of(past, real, T, device)

    def batch_select_indices(self, indices):
        for layer in self.layers:
            layer.states = {name: x.index_select(0, indices.to(x.device)) for name, x in layer.states.items()}
        self.tokens = [self.tokens[i] for i in indices.tolist()]

    def reorder_cache(self, beam_idx):
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int):
        self.batch_select_indices(torch.arange(len(self.tokens)).repeat_interleave(repeats))

    def crop(self, *_):
        raise NotImplementedError("a FlashEvaCache cannot go back: windows and summaries forget their tokens")


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


def windowed_attention(q, k, v, summaries, kind: str, eva: dict, places: Places):
    """Attention of one layer: q (B, H, T, d), k, v (B, H, S, d) of which the last T are q's own tokens, and
    where kind is eva `summaries`: kappa, beta (B, H, C, d) and the bias of their logits -> (B, H, T, d). A
    block of queries at a time: memory grows with block x (window + block + C), never with T x T."""
    T, earlier = q.shape[2], k.shape[2] - q.shape[2]
    n = places.position  # (R, T)
    m = n[:, :1] - earlier + torch.arange(earlier + T, device=n.device)  # (R, S)
    first, visible = first_token(n, kind, eva), visible_chunks(n, kind, eva)
    block = max(eva["window"], SMALLEST_QUERY_BLOCK)
    out = []
    for start in range(0, T, block):
        stop = min(start + block, T)
        begin = earlier + start - farthest([past + start for past in places.past], kind, eva)
        columns, queries = slice(begin, earlier + stop), (slice(None), slice(start, stop), None)
        hidden = (m[:, None, columns] > n[queries]) | (m[:, None, columns] < first[queries])
        mask = q.new_zeros(hidden.shape).masked_fill(hidden, -math.inf)[:, None]  # (R, 1, block, columns)
        keys, values = k[:, :, columns], v[:, :, columns]
        chunks = max(visible_chunks(past + stop - 1, kind, eva) for past in places.past)
        if chunks > 0:
            kappa, beta, bias = summaries
            kappa, beta = kappa[:, :, :chunks], beta[:, :, :chunks]
            hidden = torch.arange(kappa.shape[2], device=n.device) >= visible[queries]
            chunk_mask = bias.expand(len(hidden), -1, *hidden.shape[1:])  # (R, H or 1, block, chunks)
            chunk_mask = chunk_mask.masked_fill(hidden[:, None], -math.inf)
            mask = torch.cat([mask.expand(-1, chunk_mask.shape[1], -1, -1), chunk_mask], -1)
            keys, values = torch.cat([keys, kappa], 2), torch.cat([values, beta], 2)
        out.append(F.scaled_dot_product_attention(q[:, :, start:stop], keys, values, attn_mask=mask))
    return torch.cat(out, 2)


def rotary_tables(position, config: FlashEvaGPTNeoXConfig, like: torch.Tensor):
    """cos, sin (R, 1, T, r) of the angles that turn dimensions i and i + r at position (R, T), made in float32
    at least."""
    dims = int(config.hidden_size // config.num_attention_heads * config.rotary_pct)
    dtype = at_least_float32(like[:0]).dtype
    exponent = torch.arange(0, dims, 2, device=like.device, dtype=dtype) / max(dims, 1)
    frequency = config.rotary_emb_base**-exponent
    angle = position.to(dtype)[:, None, :, None] * frequency
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def apply_rotary(x, cos, sin):
    """Turns the first 2r dimensions of each head of x (B, H, T, d), half against half."""
    r = cos.shape[-1]
    x1, x2, rest = x[..., :r], x[..., r : 2 * r], x[..., 2 * r :]
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

    def forward(self, x, cos, sin, places: Places, cache: LayerCache | None):
        """x (B, T, D) -> (B, T, D); rows of the projection are ordered per head [q_h | k_h | v_h]."""
        qkv = self.query_key_value(x).unflatten(-1, (self.heads, 3, -1)).transpose(1, 2)  # (B, H, T, 3, d)
        q, k, v = qkv.unbind(3)
        q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
        summary = self.eva if self.kind == "eva" else None
        if cache is not None:
            k, v, kappa, beta = cache.update(q, k, v, places, summary)
        elif summary is not None:
            kappa, beta = (x.to(q.dtype) for x in summary(q, k, v))
        if self.kind == "full" and k.shape == q.shape:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            summaries = None if summary is None else (kappa, beta, summary.logit_bias(q))
            out = windowed_attention(q, k, v, summaries, self.kind, self.settings, places)
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

    def forward(self, x, cos, sin, places: Places, cache: LayerCache | None):
        attended = x + self.attention(self.input_layernorm(x), cos, sin, places, cache)
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

    def forward(self, input_ids, places: Places, cache: FlashEvaCache | None):
        x = self.embed_in(input_ids)
        cos, sin = rotary_tables(places.position, self.config, x)
        hidden_states = [x]
        for i, layer in enumerate(self.layers):
            x = layer(x, cos, sin, places, None if cache is None else cache.layers[i])
            hidden_states.append(x)
        return (*hidden_states[:-1], self.final_layer_norm(x))


def permuted(x, order):
    """x (B, T, ...) with row b in the order (B, T) of its columns."""
    return x.gather(1, order.view(*order.shape, *[1] * (x.dim() - 2)).expand_as(x))


class FlashEvaGPTNeoXPreTrainedModel(PreTrainedModel):
    config_class = FlashEvaGPTNeoXConfig
    base_model_prefix = "gpt_neox"
    _no_split_modules = ["Layer"]
    _supports_sdpa = True
    _is_stateful = True  # a cache cannot go back: transformers then refuses assisted generation

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
        past_key_values=None,
        position_ids=None,
        labels=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        logits_to_keep=0,
        **kwargs,
    ):
        """Logits (B, T, V) of input_ids (B, T). `past_key_values`: a FlashEvaCache of the columns before them,
        None: nothing was before. `attention_mask` (B, all columns so far) is 0 at padding, wherever it stands.
        `use_cache`: gives a cache that knows these columns too; default: config.use_cache, but not in
        training. `labels` (B, T) are input_ids themselves, -100 where not counted."""
        if position_ids is not None:
            raise ValueError("position_ids are not taken: positions count from each row's first real token")
        if output_attentions:
            raise ValueError("output_attentions is not supported: no matrix of weights is ever made")
        cache = self._cache_for_call(past_key_values, use_cache)
        T = input_ids.shape[1]
        real, order = self._real_tokens(input_ids, attention_mask, 0 if cache is None else cache.columns)
        if cache is None:
            places = Places.of([0], [T], T, input_ids.device)  # padding comes last: causality hides it
        else:
            places = cache.advance(real, T, input_ids.device)
        hidden_states = self.gpt_neox(
            input_ids if order is None else permuted(input_ids, order), places, cache
        )
        if order is not None:
            hidden_states = tuple(permuted(x, order.argsort(1)) for x in hidden_states)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.embed_out(hidden_states[-1][:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        if return_dict is False:
            return tuple(x for x in (loss, logits, cache) if x is not None)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=cache,
            hidden_states=hidden_states if output_hidden_states else None,
        )

    def _cache_for_call(self, past_key_values, use_cache) -> FlashEvaCache | None:
        if past_key_values is not None:
            if not isinstance(past_key_values, FlashEvaCache):
                found = type(past_key_values).__name__
                raise ValueError(f"past_key_values must be a FlashEvaCache, not {found}")
            return past_key_values
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        return FlashEvaCache(self.config) if use_cache else None

    def _real_tokens(self, input_ids, attention_mask, past_columns: int):
        """How many real tokens each row of input_ids has, and the order (B, T) of its columns that puts them
        first; None where there is no padding."""
        B, T = input_ids.shape
        if attention_mask is None:
            return [T] * B, None
        if attention_mask.shape != (B, past_columns + T):
            raise ValueError(
                f"attention_mask must be (batch, all tokens so far) = {(B, past_columns + T)}, not "
                f"{tuple(attention_mask.shape)}"
            )
        real = attention_mask[:, past_columns:] != 0
        counts = real.sum(1).tolist()
        if min(counts) == T:
            return counts, None
        return counts, torch.argsort((~real).int(), dim=1, stable=True)

    # --- generation ---

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the first call makes a FlashEvaCache

    def prepare_inputs_for_generation(
        self,
        input_ids,
        attention_mask=None,
        past_key_values=None,
        use_cache=None,
        logits_to_keep=None,
        **kwargs,
    ):
        """input_ids are all columns so far, or those after the cache alone."""
        if past_key_values is not None:
            columns = input_ids.shape[1] if attention_mask is None else attention_mask.shape[1]
            input_ids = input_ids[:, -(columns - past_key_values.get_seq_length()) :]
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep or 0,
        }
