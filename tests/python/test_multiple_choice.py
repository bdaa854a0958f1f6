"""`flasheva evaluate --multiple-choice` against lm-evaluation-harness: the same questions, the same model exported.

    HF_HUB_OFFLINE=1 python -m pytest tests/python/test_multiple_choice.py

Needs the program in build/release (or $FLASHEVA), torch, transformers, and lm_eval[hf].
"""

import json
import os
import pathlib
import random
import subprocess

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", DISABLE_MULTIPROC="1", OMP_WAIT_POLICY="passive")

import datasets
import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = os.environ.get("FLASHEVA", str(ROOT / "build/release/flasheva"))
LENGTH = 128  # tokens that the model sees at once: contexts below are longer and shorter
PREFIX = 0  # stands for an empty context; the bytes tokenizer has no end-of-sequence token that could

# From which all texts here are made, and what has more bytes than characters.
WORDS = "the old river runs past an empty house and a cold garden where some men sat before rain naïve café 東京".split()
ATTENTION = {
    "full": (),
    "eva_block": ("--attention", "eva", "--window", "32", "--chunk", "8"),
    "hybrid": ("--attention", "eva", "--window", "16", "--chunk", "8", "--window-kind", "sliding", "--layers", "0=full"),
}  # fmt: skip

CONFIG = """
run: {{output: {0}/run, seed: 5, device: cpu}}
model:
  architecture: {{vocab_size: 256, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 128,
                 max_position_embeddings: {1}, bos_token_id: {2}, eos_token_id: {2}}}
data: {{train: {0}/text.h5, sequence_length: {1}}}
batch: {{sequences: 8, micro: 8}}
phases:
  - {{name: pretrain, steps: 100, train: [all], optimizer: {{lr: 1.0e-2}}, schedule: {{warmup: 10}}}}
"""


def text_of(generator, words):
    return " ".join(generator.choice(WORDS) for _ in range(words))


def flasheva(*arguments):
    subprocess.run([PROGRAM, *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a trained model in run/model."""
    folder = tmp_path_factory.mktemp("multiple_choice")
    (folder / "text.txt").write_text(text_of(random.Random(1), 20000))
    flasheva("data", "prepare", "--input", folder / "text.txt", "--output", folder / "text.h5")
    (folder / "config.yaml").write_text(CONFIG.format(folder, LENGTH, PREFIX))
    flasheva("train", folder / "config.yaml")
    return folder


@pytest.fixture(scope="module", params=ATTENTION)
def model(request, folder):
    """A folder, and the harness's view of it."""
    path = folder / request.param
    flasheva("convert", folder / "run/model", path, *ATTENTION[request.param])
    harness = HFLM(pretrained=str(path), trust_remote_code=True, device="cpu", dtype="float32", batch_size=5,
                   prefix_token_id=PREFIX)  # fmt: skip
    return path, harness


def context(generator, number):
    """Empty ones, some with white space at their end, some longer than the model sees."""
    if number % 10 == 0:
        return ""
    return text_of(generator, generator.randint(1, 40)) + generator.choice(["", "", " ", "  ", "\n", " \u3000\t"])


def choice_lines():
    generator = random.Random(2)
    lines = []
    for number in range(30):
        choices = [" " + text_of(generator, generator.randint(1, 4)) for _ in range(generator.randint(2, 5))]
        answer = generator.randrange(len(choices))
        lines.append({"context": context(generator, number), "choices": choices, "answer": answer})
    return lines


def continuation_lines():
    """The rest of a word, which the model mostly knows, or some words."""
    generator = random.Random(3)
    lines = []
    for number in range(30):
        word = generator.choice([word for word in WORDS if len(word) > 2])
        start = text_of(generator, generator.randint(1, 30)) + " " + word[:2]
        line = (start, word[2:]) if number % 3 else (context(generator, number), text_of(generator, 2))
        lines.append({"context": line[0], "continuation": line[1]})
    return lines


def ours(model, lines):
    """Figures, and the lines of --details."""
    path, _ = model
    questions, figures, details = (path / name for name in ("q.jsonl", "f.json", "d.jsonl"))
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flasheva("evaluate", path, "--multiple-choice", questions, "--json", figures, "--details", details)
    return json.loads(figures.read_text()), [json.loads(line) for line in details.read_text().splitlines()]


def harness(model, lines, **task):
    """Results, and of every line the answers (log-likelihood, is_greedy) to its requests."""
    task = {
        "task": "local",
        "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(lines)},
        "test_split": "test",
        "doc_to_text": "context",
        "target_delimiter": "",
        **task,
    }
    tasks = TaskManager(include_defaults=False).load([task])
    out = lm_eval.evaluate(lm=model[1], task_dict=tasks, bootstrap_iters=1000)
    samples = sorted(out["samples"]["local"], key=lambda sample: sample["doc_id"])
    return out["results"]["local"], [[answer[0] for answer in sample["resps"]] for sample in samples]


def assert_same(our_log_likelihoods, our_greedy, answers):
    """Relative 1e-4; and 2e-6 where all is so likely that a sum is near 0, for a log-probability is the difference of
    two float32 numbers up to 16, each rounded by up to 16 x 2^-24 = 1e-6."""
    assert our_log_likelihoods == pytest.approx([answer[0] for answer in answers], rel=1e-4, abs=2e-6)
    assert our_greedy == [answer[1] for answer in answers]


def test_multiple_choice_is_the_harnesss(model):
    lines = choice_lines()
    figures, details = ours(model, lines)
    metrics = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]
    results, answers = harness(model, lines, output_type="multiple_choice", doc_to_choice="choices",
                               doc_to_target="answer", metric_list=metrics)  # fmt: skip
    assert len(details) == len(answers) == len(lines)
    for line, answer in zip(details, answers):
        assert_same(line["log_likelihoods"], line["greedy"], answer)
    for name in ("acc", "acc_norm", "acc_stderr", "acc_norm_stderr"):
        assert figures[name] == pytest.approx(results[f"{name},none"], rel=1e-12), name
    assert figures["truncated"] > 0 and figures["acc"] != figures["acc_norm"]


def test_continuations_are_the_harnesss(model):
    lines = continuation_lines()
    figures, details = ours(model, lines)
    metrics = [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
    ]
    results, answers = harness(model, lines, output_type="loglikelihood", doc_to_target="continuation",
                               metric_list=metrics)  # fmt: skip
    for line, answer in zip(details, answers):
        assert_same([line["log_likelihood"]], [line["greedy"]], answer)
    assert 0 < figures["acc"] < 1
    for name in ("acc", "acc_stderr"):
        assert figures[name] == pytest.approx(results[f"{name},none"], rel=1e-12), name
    assert figures["perplexity"] == pytest.approx(results["perplexity,none"], rel=1e-4)
