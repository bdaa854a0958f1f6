"""The built program, the tiny models it makes for these tests, and what it says of them."""

import os
import subprocess
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("FLASHEVA_PROGRAM", REPOSITORY / "build/release/flasheva"))
LENGTH = 96  # tokens of a training sequence: four windows of 24

# Attention as `model.attention` of a config says it. Together they have every adapter, proposal, bias, window kind
# and visibility.
EVA = "default: eva, window: 24, chunk: 8"
VARIANTS = {
    "full": "default: full",
    "sliding": "default: sliding, window: 24",
    "eva-block": f"{EVA}",
    "eva-sliding": f"{EVA}, window_kind: sliding, chunk_bias: log_chunk",
    "eva-learned": f"{EVA}, window_kind: sliding, adapter: learned, chunk_bias: learned",
    "eva-layernorm-all-past": f"{EVA}, adapter: linear_layernorm, chunk_visibility: all_past, chunk_bias: learned",
    "eva-k": f"{EVA}, window_kind: sliding, chunk_visibility: all_past, proposal: k",
    "eva-none-zero": f"{EVA}, adapter: none, proposal: zero",
    "hybrid": f"{EVA}, layers: {{0: full, 2: sliding}}",
    "geometries": f"{EVA}, layers: {{0: {{window: 16, chunk: 4}}, 1: {{kind: sliding, window: 7}}}}",
}
MAIN_VARIANTS = ("full", "sliding", "eva-block", "eva-sliding", "hybrid")


def run(*arguments, expect: int = 0) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""}
    words = [PROGRAM, *map(str, arguments)]
    result = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert result.returncode == expect, f"{result.returncode}: {' '.join(map(str, words))}\n{result.stderr}"
    return result


def some_text(length: int, seed: int = 1) -> bytes:
    """Each letter leaves four choices for the next, one of them likelier."""
    text, state, letter = bytearray(), seed, 0
    while len(text) < length:
        state = (state * 1664525 + 1013904223) % 2**32
        letter = (3 * letter + max(0, (state >> 29) - 4)) % 27
        text.append(32 if letter == 26 else 97 + letter)
    return bytes(text)


def tokens_of(*texts: bytes) -> torch.Tensor:
    """(B, T)"""
    return torch.tensor([list(text) for text in texts])


def train(folder: Path, name: str, model: str, steps: int, lr: float, more: str = "", optimizer: str = "") -> Path:
    """Runs a config in `folder`, which has train.h5, and gives the finished model."""
    (folder / f"{name}.yaml").write_text(f"""
run: {{output: {folder / name}, seed: 3, device: cpu}}
model: {{{model}}}
data: {{train: {folder}/train.h5, sequence_length: {LENGTH}, shuffle: false}}
batch: {{sequences: 4, micro: 4}}
phases:
  - {{name: only, steps: {steps}, train: [all], optimizer: {{lr: {lr}{optimizer}}}, schedule: {{kind: constant}}}}
log: {{every: 1}}
{more}""")
    run("train", folder / f"{name}.yaml")
    return folder / name / "model"


def logits(model: Path, tokens: torch.Tensor) -> torch.Tensor:
    """What `flasheva logits` gives for tokens (B, T): float32 (B, T, V)."""
    with tempfile.TemporaryDirectory() as folder:
        save_file({"tokens": tokens.int().contiguous()}, f"{folder}/tokens.safetensors")
        run("logits", model, "--tokens", f"{folder}/tokens.safetensors", "--output", f"{folder}/logits.safetensors")
        return load_file(f"{folder}/logits.safetensors")["logits"]


def load(model: Path, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(model, trust_remote_code=True, dtype=dtype).eval()


def forward(model, tokens, mask, **arguments):
    """One call of a transformers model; mask is that of all columns so far. Stock GPT-NeoX learns of padding
    from positions."""
    if model.config.model_type == "gpt_neox":
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        arguments["position_ids"] = positions[:, -tokens.shape[1] :]
    return model(tokens, attention_mask=mask, **arguments)


def padded(rows: list, columns: int, side: str):
    """Rows of tokens as one batch (B, columns), and its mask; under the padding stand other tokens."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(97, 123, (len(rows), columns), generator=generator)
    mask = torch.zeros(len(rows), columns, dtype=torch.long)
    for b, row in enumerate(rows):
        where = {
            "left": torch.arange(columns - len(row), columns),
            "right": torch.arange(len(row)),
            "anywhere": torch.randperm(columns, generator=generator)[: len(row)].sort().values,
        }[side]
        tokens[b, where], mask[b, where] = row, 1
    return tokens, mask


def in_pieces(model, tokens, mask, ends) -> torch.Tensor:
    """Logits of a batch that a cache takes up to each of `ends` in turn."""
    cache, begin, parts = None, 0, []
    for end in ends:
        out = forward(model, tokens[:, begin:end], mask[:, :end], past_key_values=cache, use_cache=True)
        cache, begin = out.past_key_values, end
        parts.append(out.logits)
    return torch.cat(parts, 1)


def relative_difference(x: torch.Tensor, reference: torch.Tensor) -> float:
    """||x - reference|| / ||reference||; infinite where not finite."""
    x, reference = x.double(), reference.double()
    error = ((x - reference).norm() / reference.norm()).item()
    return error if error == error else float("inf")
