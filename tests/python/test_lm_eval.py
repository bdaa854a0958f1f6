"""lm_eval on an export: the log-likelihoods of a task are those that our logits give."""

import json
from pathlib import Path

import flasheva
import lm_eval
import pytest
from lm_eval.tasks import TaskManager

HERE = Path(__file__).parent


def log_likelihood(folder, text: str, ending: str) -> float:
    tokens = flasheva.tokens_of((text + ending).encode())
    log_p = flasheva.logits(folder, tokens[:, :-1])[0].double().log_softmax(-1)
    return log_p.gather(1, tokens[0, 1:, None])[len(text) - 1 :].sum().item()


@pytest.mark.parametrize("variant", ["eva-block", "hybrid"])
def test_log_likelihoods_agree(model_of, monkeypatch, variant):
    monkeypatch.chdir(HERE)  # the task names its data from here
    folder = model_of(variant)
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={
            "pretrained": str(folder),
            "trust_remote_code": True,
            "dtype": "float32",
            "device": "cpu",
            "prefix_token_id": 10,  # the bytes tokenizer has neither BOS nor EOS
        },
        tasks=["next_letters"],
        task_manager=TaskManager(include_path=str(HERE / "tasks"), include_defaults=False),
        batch_size=3,
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = results["samples"]["next_letters"]
    documents = [json.loads(line) for line in open(HERE / "tasks/next_letters.jsonl")]
    assert len(samples) == len(documents)
    right = 0
    for sample in samples:
        document = sample["doc"]
        given = [float(response[0][0]) for response in sample["resps"]]
        expected = [log_likelihood(folder, document["text"], ending) for ending in document["endings"]]
        # Sums of six float32 log-probabilities behind logits that differ by 1e-5 of themselves at most.
        assert given == pytest.approx(expected, rel=1e-5, abs=1e-4)
        right += max(range(2), key=expected.__getitem__) == document["label"]
    assert results["results"]["next_letters"]["acc,none"] == right / len(documents)
