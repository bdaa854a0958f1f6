"""`flasheva convert --verify`, and the model card."""

import json
import os
import sys

import flasheva
import pytest
import transformers
import yaml

THERE = ["--python", sys.executable]


@pytest.mark.parametrize("variant", ["full", "geometries"])
def test_verify_compares_and_writes_it_into_the_card(model_of, tmp_path, variant):
    out = flasheva.run("convert", model_of(variant), tmp_path / "export", "--verify", *THERE).stdout
    card = (tmp_path / "export/README.md").read_text()
    for name in ("plain", "left-padded", "cached"):
        assert f"transformers {transformers.__version__} {name}" in out
        assert f"| {name} |" in card
    assert f"transformers {transformers.__version__}" in card
    flasheva.run("convert", model_of(variant), tmp_path / "half", "--dtype", "bfloat16", "--verify", *THERE)


def interpreter(path, script):
    """Stands for a Python: verify_export.py FOLDER EXCHANGE DECODE_FROM are its $1 .. $4."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    os.chmod(path, 0o755)
    return path


def test_a_difference_above_the_bound_is_an_error(pretrained, tmp_path):
    for value in ("1e-3", "NaN"):
        rows = f'[{{"name": "cached", "max_abs": 1, "relative_l2": {value}}}]'.replace("NaN", "null")
        result = f'{{"transformers": "5", "torch": "2", "rows": {rows}}}'
        python = interpreter(tmp_path / "python", f"echo '{result}' > $3/result.json")
        failed = flasheva.run("convert", pretrained, tmp_path / "x", "--verify", "--python", python, expect=6)
        assert "(cached) differ by" in failed.stderr and failed.stderr.count("\n") == 1
        assert "Not yet" in (tmp_path / "x/README.md").read_text()


def test_a_python_that_cannot_verify_is_named(pretrained, tmp_path):
    no_transformers = interpreter(tmp_path / "python", "echo no transformers >&2; exit 1")
    for python, part in ((no_transformers, "has no transformers"), ("/absent/python", "cannot be run")):
        failed = flasheva.run("convert", pretrained, tmp_path / "x", "--verify", "--python", python, expect=2)
        assert f"--python {python}" in failed.stderr and part in failed.stderr
        assert failed.stderr.count("\n") == 1
    broken = interpreter(tmp_path / "broken", "echo line; echo RuntimeError: why; exit 1")
    failed = flasheva.run("convert", pretrained, tmp_path / "x", "--verify", "--python", broken, expect=1)
    assert "RuntimeError: why" in failed.stderr and failed.stderr.count("\n") == 1


def test_the_card_says_what_the_run_was(workspace, model_of, tmp_path):
    model = model_of("geometries")
    flasheva.run("convert", workspace / "geometries/checkpoints/step-000000008", tmp_path / "from-checkpoint")
    flasheva.run("convert", model, tmp_path / "from-model")
    metrics = [json.loads(line) for line in open(workspace / "geometries/metrics.jsonl")]
    for folder in (model, tmp_path / "from-checkpoint", tmp_path / "from-model"):
        card = (folder / "README.md").read_text()
        for part in (
            "library_name: transformers",
            "pipeline_tag: text-generation",
            'base_model: "pretrained"',
            "trust_remote_code=True",
            "| 0 | eva | block window of 16 | 4 tokens |",
            "| 1 | sliding | the last 7 | |",
            "| 2 | eva | block window of 24 | 8 tokens |",
            "8 optimizer steps in all, on `train.h5`",
            f"| only | 8 | fp32 | all | 0.003 | constant | {metrics[-1]['loss']:.4f} |",
            "Not yet",
        ):
            assert part in card, part
        assert str(workspace) not in card, "an absolute path"


def test_the_card_says_that_nothing_was_trained_since_the_swap(pretrained, tmp_path):
    flasheva.run("convert", pretrained, tmp_path / "eva", "--attention", "eva", "--window", 8, "--chunk", 4)
    assert "nothing has been trained since" in (tmp_path / "eva/README.md").read_text()
    flasheva.run("convert", pretrained, tmp_path / "same")
    assert "nothing has been trained since" not in (tmp_path / "same/README.md").read_text()


def test_the_front_matter_is_yaml(model_of):
    _, matter, _ = (model_of("hybrid") / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(matter)["tags"] == ["gpt_neox", "flasheva", "custom_code", "linear-attention"]
