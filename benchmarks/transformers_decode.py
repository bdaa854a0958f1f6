"""Times transformers' `generate`, greedy, after a context: stock GPTNeoX with its full cache, or our modeling file
with FlashEVA's. Prints one line of JSON. Random weights; run by decode.py, in a process of its own."""

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
import transformers
from transformers import DynamicCache, GPTNeoXConfig, GPTNeoXForCausalLM

from common import THREADS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "io"))
from huggingface import configuration_flasheva_gpt_neox as configuration  # noqa: E402
from huggingface import modeling_flasheva_gpt_neox as modeling  # noqa: E402

NEW_TOKENS = 8


class Clock(transformers.StoppingCriteria):
    """Notes when each token is there; stops nothing."""

    def __init__(self):
        self.times = []

    def __call__(self, input_ids, scores, **kwargs):
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def filled_cache(config, batch: int, context: int, dtype) -> DynamicCache:
    """A full cache of random values, as after a prompt of `context` tokens."""
    cache = DynamicCache()
    head_dim = config.hidden_size // config.num_attention_heads
    for layer in range(config.num_hidden_layers):
        keys = torch.randn(batch, config.num_attention_heads, context, head_dim, dtype=dtype)
        cache.update(keys, keys.clone(), layer)
    return cache


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("full", "eva"), required=True)
    parser.add_argument("--shape", type=int, nargs=4, required=True, help="hidden, layers, heads, intermediate")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    transformers.logging.set_verbosity_error()
    hidden, layers, heads, intermediate = options.shape
    sizes = {"vocab_size": 50304, "hidden_size": hidden, "num_hidden_layers": layers, "rotary_pct": 0.25}
    sizes |= {"num_attention_heads": heads, "intermediate_size": intermediate, "max_position_embeddings": 65536}
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    torch.manual_seed(0)
    arguments = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
    tokens = torch.randint(0, 50304, (options.batch, options.context + 1))
    if options.kind == "full":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes))
        arguments["past_key_values"] = filled_cache(model.config, options.batch, options.context, dtype)
    else:
        model = modeling.FlashEvaGPTNeoXForCausalLM(configuration.FlashEvaGPTNeoXConfig(**sizes))
    model = model.to(dtype).eval()
    clock = Clock()
    arguments["stopping_criteria"] = transformers.StoppingCriteriaList([clock])
    with torch.no_grad():
        model.generate(tokens, attention_mask=torch.ones_like(tokens), **arguments)
    steps = [b - a for a, b in zip(clock.times[1:], clock.times[2:])]
    figures = {"tokens_per_second": options.batch / statistics.median(steps)}
    figures["peak_memory_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
