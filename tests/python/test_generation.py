"""Greedy generation: `flasheva generate` against transformers, 200 tokens."""

import flasheva
import pytest
from transformers import AutoTokenizer

NEW_TOKENS = 200
MARGIN = 1e-3  # between the two largest logits: a hundred times what float32 makes them differ (test_logits.py)


@pytest.mark.parametrize("variant", flasheva.MAIN_VARIANTS)
def test_greedy_generation_agrees(model_of, variant):
    folder = model_of(variant)
    prompt = flasheva.some_text(30, seed=9).decode()
    text = flasheva.run(
        "generate", folder, "--prompt", prompt, "--greedy", "--max-new-tokens", NEW_TOKENS
    ).stdout.removesuffix("\n")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = flasheva.load(folder)
    inputs = tokenizer(prompt, return_tensors="pt")  # all of it is what the model takes
    assert inputs.input_ids[0].tolist() == list(prompt.encode())
    for use_cache in (False, True):
        out = model.generate(
            **inputs,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            use_cache=use_cache,
            pad_token_id=0,
        )
        assert tokenizer.decode(out[0]) == text, f"use_cache {use_cache}"
    # Nothing hung on a near tie, so that the above had to agree.
    best = model(out[:, :-1]).logits[0, len(prompt) - 1 :].topk(2).values
    assert (best[:, 0] - best[:, 1]).min() > MARGIN
