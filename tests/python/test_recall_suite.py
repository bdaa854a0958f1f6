"""data/recall_suite.py: the answer stands where `distance` says, nowhere nearer, and a seed says all.

    python -m pytest tests/python/test_recall_suite.py

Needs h5py and numpy.
"""

import json
import pathlib
import subprocess
import sys

import h5py
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "data"))
import recall_suite

SUITES = {
    "needle": ("needle", "--lengths", "200", "1000", "--questions", "3"),
    "jrt": ("jrt", "--lengths", "500", "--facts", "6", "--questions", "10"),
    "mqar": ("mqar", "--pairs", "4", "32", "--sequences", "3"),
    "mqar_tokens": ("mqar", "--tokens", "--pairs", "4", "32", "--sequences", "3"),
}


def questions(folder, suite, seed=7):
    path = folder / f"{suite}.jsonl"
    recall_suite.main([*SUITES[suite], "--output", str(path), "--seed", str(seed)])
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("suite", SUITES)
def test_the_same_seed_gives_the_same_questions(suite, tmp_path):
    assert questions(tmp_path, suite) == questions(tmp_path, suite) != questions(tmp_path, suite, seed=8)


@pytest.mark.parametrize("suite", ("needle", "jrt"))
def test_the_answer_stands_at_its_distance_and_nowhere_nearer(suite, tmp_path):
    for question in questions(tmp_path, suite):
        context, answer = question["context"], question["choices"][question["answer"]].strip()
        assert len(context) - context.rindex(answer) == question["distance"]
        assert len(context) == question["length"] and len(set(question["choices"])) == 4


def test_the_key_that_is_asked_for_stands_before_its_value_and_nowhere_else(tmp_path):
    for question in questions(tmp_path, "mqar"):
        context = question["context"]
        pair = context[-2:] + question["continuation"]
        assert len(context) - context.index(pair) - 3 == question["distance"]
        assert context.count(context[-2:]) == 2 and len(context) == question["length"]


def test_tokens_name_the_item_of_the_key_that_is_asked_for(tmp_path):
    for question in questions(tmp_path, "mqar_tokens"):
        context, (item,) = question["context_tokens"], question["continuation_tokens"]
        assert context[len(context) - question["distance"]] == item and context.count(item) == 1
        assert context[-1] == 128 + item // 4


def test_the_needle_is_where_its_depth_says(tmp_path):
    for question in questions(tmp_path, "needle"):
        context, fact = question["context"], "The code of "
        filler = context.rindex(fact) - (context.index(". ", context.index(fact)) + 2 - context.index(fact))
        assert abs(context.index(fact) - question["depth"] * filler) <= 70  # within a sentence


def test_a_text_read_twice_asks_the_same(tmp_path):
    asked = questions(tmp_path, "jrt")
    for once, twice in zip(asked[::2], asked[1::2]):
        assert (once["group"], twice["group"]) == ("jrt 500 once", "jrt 500 twice")
        text = once["context"][: once["context"].rindex("The code of")]
        assert twice["context"] == text + once["context"]
        assert once["distance"] == twice["distance"]
        assert once["choices"][once["answer"]] == twice["choices"][twice["answer"]]
        assert all(choice in once["context"] for choice in once["choices"])


def test_training_files_count_the_answers_alone(tmp_path):
    sizes = ["--train-sequences", "20", "--validation-sequences", "5", "--pairs", "8"]
    recall_suite.main(["mqar-training", "--output", str(tmp_path), *sizes])
    with h5py.File(tmp_path / "mqar.h5") as file:
        tokens, mask = file["tokens"][:], file["loss_mask"][:]
        assert file["tokens"].attrs["vocab_size"] == 192
    assert len(tokens) == 20 * 256 + 1 and mask.sum() == 20 * 8
    assert (tokens[:-1][mask[1:] == 1] == 128 + tokens[1:][mask[1:] == 1] // 4).all()


@pytest.mark.parametrize("words", (("recall.py",), ("recall_suite.py", "mqar-training"), ("recall_suite.py", "mqar")))
def test_an_output_that_cannot_be_written_is_named_in_one_line(words, tmp_path):
    (tmp_path / "file").write_text("mine")
    where = tmp_path / "file" / "below" if words[-1] == "mqar" else tmp_path / "file"
    counts = [] if words[-1] == "mqar" else ["--train-sequences", "2", "--validation-sequences", "1"]
    data = pathlib.Path(recall_suite.__file__).parent
    command = [sys.executable, data / words[0], *words[1:], "--output", where, *counts]
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1
    assert failed.stderr.startswith(f"data/{words[0]}: ") and str(tmp_path / "file") in failed.stderr
