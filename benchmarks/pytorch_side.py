"""PyTorch's side of the comparison: training steps and attentions as a careful user would run them.

Every row runs in several variants, and the fastest counts:
    eager | compiled            torch.compile of forward and loss (of the attention alone in attention rows)
    unfused                     compiled without horizontal fusion, which fails in bfloat16 on some machines
    bf16: autocast | weights    float32 weights under autocast, or bfloat16 weights with float32 masters
    FlashEVA: loop | batched    a loop over query blocks with SDPA, or all windows in one batched product
"""

import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from common import THREADS
from rows import AttentionRow

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "io"))
from huggingface import configuration_flasheva_gpt_neox as configuration  # noqa: E402
from huggingface import modeling_flasheva_gpt_neox as modeling  # noqa: E402

ENOUGH_S = 20


# --- FlashEVA, all windows at once -------------------------------------------------------------------


def batched_block_attention(q, k, v, summaries, kind: str, eva: dict, places):
    """Block window, chunks outside it, T a multiple of W: q, k, v (B, H, T, d) -> (B, H, T, d)."""
    W, T, s = eva["window"], q.shape[2], q.shape[-1] ** -0.5
    windows = T // W
    kappa, beta, _ = summaries
    q_w, k_w, v_w = (x.unflatten(2, (windows, W)) for x in (q, k, v))  # (B, H, windows, W, d)
    n, w = torch.arange(W, device=q.device), torch.arange(windows, device=q.device)
    future = n > n[:, None]  # (W, W)
    unseen = torch.arange(kappa.shape[2], device=q.device) >= w[:, None, None] * (W // eva["chunk"])
    exact = (q_w @ k_w.mT * s).masked_fill(future, -math.inf)
    coarse = ((q * s) @ kappa.mT).unflatten(2, (windows, W)).masked_fill(unseen, -math.inf)
    weights = torch.softmax(torch.cat([exact, coarse], -1), -1, dtype=torch.float32).to(q.dtype)
    far = weights[..., W:].flatten(2, 3) @ beta
    return (weights[..., :W] @ v_w).flatten(2, 3) + far


FORMULATIONS = {"loop": modeling.windowed_attention, "batched": batched_block_attention}


# --- variants ------------------------------------------------------------------------------------------


COMPILE_OPTIONS = {"compiled": {}, "unfused": {"cpp.max_horizontal_fusion_size": 1}}


def compiled(function, execution: str):
    """The function as `execution` says: eager, compiled or unfused."""
    if execution == "eager":
        return function
    return torch.compile(function, dynamic=False, options=COMPILE_OPTIONS[execution])


def make_model(config: dict, start: Path | None, full_attention: str, device: str):
    """In float32, with the weights of the folder `start`, or of its own where that is None."""
    architecture, attention = config["model"]["architecture"], config["model"]["attention"]
    if attention["default"] == "full":
        how = {"use_cache": False, "attn_implementation": full_attention}
        kind, model_config = GPTNeoXForCausalLM, GPTNeoXConfig(**architecture, **how)
    else:
        eva = {key: attention[key] for key in configuration.EVA_DEFAULTS if key in attention}
        kind = modeling.FlashEvaGPTNeoXForCausalLM
        model_config = configuration.FlashEvaGPTNeoXConfig(**architecture, eva=eva | {"noise_clip": 0.0})
    if start is None:
        torch.manual_seed(0)
        with torch.device(device):
            return kind(model_config)
    return kind.from_pretrained(start, config=model_config, dtype=torch.float32).to(device)


def make_tokens(config: dict, start: Path | None, device: str) -> tuple:
    """Tokens (B, T) and targets (B T): those of the folder `start`, or others where that is None."""
    if start is not None:
        stored = load_file(start / "tokens.safetensors", device=device)
        return stored["tokens"].long(), stored["targets"].long().flatten()
    vocab_size = config["model"]["architecture"]["vocab_size"]
    tokens = torch.randint(0, vocab_size, (2, *batch_shape(config)), device=device)
    return tokens[0], tokens[1].flatten()


class Step:
    """A training step: forward, backward, clipping, fused AdamW. Calling it runs one, always on the same tokens.
    `start`: a folder that `flasheva bench step --write-start` wrote, to begin with its weights and tokens.
    `full_attention`: how transformers computes full attention, one of its names or a registered one."""

    def __init__(
        self,
        config: dict,
        execution: str,
        storage: str,
        formulation: str,
        start: Path | None = None,
        device="cpu",
        full_attention="sdpa",
    ):
        self.device = device
        self.windowed_attention = FORMULATIONS.get(formulation)
        self.model = model = make_model(config, start, full_attention, device).train()
        self.masters = None
        if storage == "weights":
            self.masters = [p.detach().clone().requires_grad_() for p in model.parameters()]
            self.model.bfloat16()
        self.autocast = storage == "autocast"
        self.optimizer = torch.optim.AdamW(self.optimized(), lr=1e-4, betas=(0.9, 0.95), fused=True)
        self.tokens, self.targets = make_tokens(config, start, device)
        self.loss = compiled(self.plain_loss, execution)
        self.first_loss = None  # before any update, nats a token

    def optimized(self) -> list:
        return self.masters or list(self.model.parameters())

    def plain_loss(self, tokens, targets):
        return F.cross_entropy(self.model(tokens).logits.flatten(0, 1).float(), targets)

    def __call__(self) -> None:
        modeling.windowed_attention = self.windowed_attention  # torch.compile guards on it
        self.model.zero_grad(set_to_none=True)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            loss = self.loss(self.tokens, self.targets)
        if self.first_loss is None:
            self.first_loss = loss.item()
        loss.backward()
        parameters = list(self.model.parameters())
        if self.masters:
            for master, parameter in zip(self.masters, parameters):
                master.grad = parameter.grad.float()
        torch.nn.utils.clip_grad_norm_(self.optimized(), 1.0, foreach=True)
        self.optimizer.step()
        if self.masters:
            torch._foreach_copy_([p.data for p in parameters], [m.data for m in self.masters])

    def drop_gradients(self) -> None:
        """Those of the last step; the next makes its own."""
        for parameter in (*self.model.parameters(), *self.optimized()):
            parameter.grad = None


class Attention:
    """Attention alone, forward and backward to q, k, v and the EVA parameters. Calling it runs both."""

    def __init__(self, row: AttentionRow, precision: str, execution: str, formulation: str, device="cpu"):
        torch.manual_seed(0)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        shape = (row.batch, row.heads, row.tokens, row.head_dim)
        self.inputs = [torch.randn(shape, dtype=dtype, device=device, requires_grad=True) for _ in "qkv"]
        if row.kind == "full":

            def attend(q, k, v):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        else:
            eva = configuration.EVA_DEFAULTS | {"window": row.window, "chunk": row.chunk, "noise_clip": 0.0}
            summary = modeling.ChunkSummary(eva, row.heads, row.head_dim).to(device, dtype)
            self.inputs += summary.parameters()

            def attend(q, k, v):
                kappa, beta = (x.to(q.dtype) for x in summary(q, k, v))
                places = modeling.Places.of([0], [row.tokens], row.tokens, q.device)
                summaries = (kappa, beta, summary.logit_bias(q))
                return FORMULATIONS[formulation](q, k, v, summaries, "eva", eva, places)

        self.attend = compiled(attend, execution)
        self.dout = torch.randn_like(self.attend(*self.inputs[:3]))  # of its strides: the backward copies nothing

    def __call__(self) -> None:
        out = self.attend(*self.inputs[:3])
        torch.autograd.grad(out, self.inputs, self.dout)


def batch_shape(config: dict) -> tuple:
    return config["batch"]["sequences"], config["data"]["sequence_length"]


def step_variants(config: dict, precision: str) -> dict:
    """{name: arguments of Step}."""
    storages = ("autocast", "weights") if precision == "bf16" else ("",)
    formulations = ("",) if config["model"]["attention"]["default"] == "full" else tuple(FORMULATIONS)
    return {
        " ".join(filter(None, (execution, storage, formulation))): (execution, storage, formulation)
        for execution in ("eager", "compiled", "unfused")
        for storage in storages
        for formulation in formulations
        if execution != "unfused" or storage == "weights"
    }


def attention_variants(row: AttentionRow) -> dict:
    """{name: arguments of Attention}."""
    formulations = ("",) if row.kind == "full" else tuple(FORMULATIONS)
    return {
        " ".join(filter(None, (execution, formulation))): (execution, formulation)
        for execution in ("eager", "compiled")
        for formulation in formulations
    }


# --- measurement ---------------------------------------------------------------------------------------


def seconds(work, repeats: int) -> float:
    """The median of `repeats` runs; fewer, once they have taken ENOUGH_S."""
    times = []
    while len(times) < repeats and sum(times) < ENOUGH_S:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def gemm_peak(shapes: list, precision: str, limit_s: float = 0.5) -> float:
    """FLOP/s of the fastest of these products (rows, outputs, inputs), each run for `limit_s` seconds."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    for rows, outputs, inputs in shapes:
        x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
        end = time.perf_counter() + limit_s
        while True:
            duration = seconds(lambda: F.linear(x, weight), 1)
            best = max(best, 2 * rows * outputs * inputs / duration)
            if time.perf_counter() > end:
                break
    return best
