"""Compares the logits of a model folder in Hugging Face transformers with flasheva's; `flasheva convert
--verify` runs it.

    verify_export.py FOLDER EXCHANGE DECODE_FROM

EXCHANGE/ours.safetensors has `tokens` (2, T) and flasheva's float32 `logits` (2, T, V). Three ways through the
model, all in float32: plain; left-padded, the second row a third shorter; cached, the tokens before DECODE_FROM
in two pieces and those from there on one by one. Writes EXCHANGE/result.json.
"""

import json
import os
import sys

folder, exchange, decode_from = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_MODULES_CACHE"] = os.path.join(exchange, "modules")  # leaves nothing behind

try:
    import torch
    import transformers
    from safetensors.torch import load_file
except ImportError as error:
    sys.exit(f"no {error.name}")


def run(model, tokens, mask, **arguments):
    if model.config.model_type == "gpt_neox":  # which knows of padding only through positions
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        arguments["position_ids"] = positions[:, -tokens.shape[1] :]
    return model(tokens, attention_mask=mask, **arguments)


def plain(model, tokens, rows):
    return run(model, tokens, torch.ones_like(tokens), use_cache=False).logits


def left_padded(model, tokens, rows):
    T = tokens.shape[1]
    padded, mask = torch.zeros_like(tokens), torch.zeros_like(tokens)
    for b, length in enumerate(rows):
        padded[b, T - length :], mask[b, T - length :] = tokens[b, :length], 1
    logits = run(model, padded, mask, use_cache=False).logits
    return torch.stack([row.roll(length - T, 0) for row, length in zip(logits, rows)])


def cached(model, tokens, rows):
    T = tokens.shape[1]
    ends = [decode_from // 2, *range(decode_from, T + 1)]
    cache, begin, logits = None, 0, []
    for end in ends:
        mask = torch.ones_like(tokens[:, :end])
        out = run(model, tokens[:, begin:end], mask, past_key_values=cache, use_cache=True)
        cache, begin = out.past_key_values, end
        logits.append(out.logits)
    return torch.cat(logits, 1)


def difference(logits, ours, rows):
    """Over the first rows[b] tokens of each row b."""
    x, reference = (torch.cat([t[b, :n] for b, n in enumerate(rows)]).double() for t in (logits, ours))
    return {
        "max_abs": (x - reference).abs().max().item(),
        "relative_l2": ((x - reference).norm() / reference.norm()).item(),
    }


@torch.no_grad()
def main():
    given = load_file(os.path.join(exchange, "ours.safetensors"))
    tokens, ours = given["tokens"].long(), given["logits"]
    T = tokens.shape[1]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, dtype=torch.float32
    ).eval()
    ways = {"plain": (plain, [T, T]), "left-padded": (left_padded, [T, T - T // 3]), "cached": (cached, [T, T])}
    rows = [
        {"name": name, **difference(way(model, tokens, rows), ours, rows)} for name, (way, rows) in ways.items()
    ]
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    with open(os.path.join(exchange, "result.json"), "w") as file:
        json.dump({**versions, "rows": rows}, file)


main()
