"""One training step of ours against transformers and torch.optim.AdamW on the same batch."""

import json

import flasheva
import pytest
import torch

LOSS_BOUND = 1e-6  # a mean of 384 float32 terms
# Float32 sums over 384 tokens, then a quotient: design's bound for sums over long axes. eps 1e-4 in AdamW, as large
# as a gradient here: with the usual 1e-8 the first update is the gradient's sign, and of a gradient that is zero but
# for rounding the sign is anything.
UPDATE_BOUND = 1e-4
LR, EPS = 1e-2, 1e-4


def torch_step(model, batch):
    """The loss before a step of AdamW, and the weights after it."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), eps=EPS)
    with torch.enable_grad():
        logits = model(batch[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item(), model.state_dict()


@pytest.mark.parametrize("variant", [*flasheva.MAIN_VARIANTS, "eva-learned", "eva-layernorm-all-past"])
def test_a_step_gives_the_same_loss_and_weights(workspace, model_of, variant):
    start = model_of(variant)
    # Noise off, which the folder's own attention would have on.
    attention = f"from: {start}, attention: {{{flasheva.VARIANTS[variant]}, noise: {{enabled: false}}}}"
    after = flasheva.train(
        workspace, f"step-{variant}", attention, 1, LR, optimizer=f", eps: {EPS}, weight_decay: 0.01"
    )
    metrics = [json.loads(line) for line in open(workspace / f"step-{variant}" / "metrics.jsonl")]

    text, L = (workspace / "train.txt").read_bytes(), flasheva.LENGTH
    batch = flasheva.tokens_of(*(text[i * L : i * L + L + 1] for i in range(4)))
    before = {name: p.clone() for name, p in flasheva.load(start).state_dict().items()}
    loss, weights = torch_step(flasheva.load(start), batch)  # eval(): noise off
    assert abs(metrics[0]["loss"] - loss) <= LOSS_BOUND * loss
    ours = flasheva.load(after).state_dict()
    assert ours.keys() == weights.keys()
    for name in weights:
        update, expected = ours[name] - before[name], weights[name] - before[name]
        assert expected.norm() > 0, name
        assert flasheva.relative_difference(update, expected) <= UPDATE_BOUND, name
