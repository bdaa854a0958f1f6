"""TensorBoard's files as TensorBoard reads them, and the report, of runs by the built program.

    FLASHEVA=build/release/flasheva pytest tests/python/test_report.py
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("FLASHEVA", REPOSITORY / "build/release/flasheva")).resolve()
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}

SCRATCH = """
run: {name: tiny, output: scratch, seed: 3, device: cpu}
model:
  architecture: {vocab_size: 256, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64}
data: {train: text.h5, sequence_length: 32}
batch: {sequences: 4}
phases: [{name: pretrain, steps: 6, train: [all], optimizer: {lr: 1.0e-2}}]
log: {every: 1}
"""
TUNE = """
run: {name: tuned & swapped, output: tuned, seed: 4, device: cpu}
model:
  from: scratch/model
  attention: {default: eva, layers: {1: full}, window: 8, chunk: 4}
data: {train: text.h5, validation: text-validation.h5, sequence_length: 32}
batch: {sequences: 4}
phases:
  - {name: attention_warmup, steps: 60, train: [attention], optimizer: {lr: 3.0e-3}}
  - {name: full_finetune, steps: 60, train: [all], optimizer: {lr: 1.0e-3}}
checkpoint: {every: 7, keep: 2}
evaluate: {every: 25, batches: 2}
log: {every: 1, layers_every: 10}
"""


def flasheva(folder: Path, *arguments: str) -> None:
    subprocess.run([PROGRAM, *arguments], cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def kill_after(folder: Path, run: str, lines: int, *arguments: str) -> None:
    """Ends a run without warning once its metrics.jsonl has so many lines."""
    process = subprocess.Popen([PROGRAM, *arguments], cwd=folder, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    path = folder / run / "metrics.jsonl"
    while process.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") >= lines):
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -9, "the run ended before it was killed"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a run from scratch, a run that swaps the attention, and one of these that was killed twice."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text("".join(chr(97 + i * i % 23) for i in range(6000)))
    (folder / "scratch.yaml").write_text(SCRATCH)
    (folder / "tune.yaml").write_text(TUNE)
    flasheva(folder, "data", "prepare", "--input", "text.txt", "--tokenizer", "bytes", "--output", "text.h5",
             "--validation", "0.1")
    flasheva(folder, "train", "scratch.yaml")
    flasheva(folder, "train", "tune.yaml")
    for lines in (20, 90):
        kill_after(folder, "killed", lines, "train", "tune.yaml", "run.output=killed")
    flasheva(folder, "train", "tune.yaml", "run.output=killed")
    return folder


def scalars_of_metrics(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard should show: float32 values at the steps of the whole run."""
    series = defaultdict(list)
    for entry in metrics(run):
        for key, value in entry.items():
            parts = {}
            if key == "grad_norm_by_part":
                parts = {"gradient_norm/" + re.sub(r"^layers\.", "layer_", part): norm for part, norm in value.items()}
            elif key == "attention_error":
                parts = {f"attention_error/layer_{layer}": error for layer, error in enumerate(value)
                         if error is not None}
            elif key not in ("phase", "step", "run_step", "time", "warning"):
                parts = {key: value}
            for tag, number in parts.items():
                series[tag].append((entry["run_step"], float(numpy.float32(number))))
    return dict(series)


def reader_of(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})


def scalars_read(events: EventAccumulator) -> dict[str, list[tuple[int, float]]]:
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("run", ["scratch", "tuned", "killed"])
def test_tensorboard_reads_what_metrics_say(folder, run):
    events = reader_of(folder / run)
    expected = scalars_of_metrics(folder / run)
    assert scalars_read(events) == expected
    assert len(expected["loss"]) == (6 if run == "scratch" else 120)
    assert ("attention_error/layer_0" in expected) == (run != "scratch")
    times = [event.wall_time for event in events.Scalars("loss")]
    assert times == [entry["time"] for entry in metrics(folder / run) if "loss" in entry]


def test_a_tensorboard_that_watches_follows_a_run_that_goes_on(folder):
    train = ("train", "tune.yaml", "run.output=watched")
    kill_after(folder, "watched", 20, *train)
    events = reader_of(folder / "watched")
    assert scalars_read(events)["loss"]
    flasheva(folder, *train)
    assert scalars_read(events) == scalars_of_metrics(folder / "watched")


def test_tensorboard_shows_the_config(folder):
    events = EventAccumulator(str(folder / "tuned"))
    events.Reload()
    text = events.Tensors("run")[0].tensor_proto.string_val[0].decode()
    assert json.loads(text.strip("`\n")) == json.loads((folder / "tuned/run.json").read_text())


def test_a_killed_run_says_what_the_uninterrupted_one_says(folder):
    apart = ("tokens_per_second", "peak_memory_bytes", "time")
    both = [[{key: value for key, value in entry.items() if key not in apart} for entry in metrics(folder / run)]
            for run in ("tuned", "killed")]
    assert both[0] == both[1]


def report(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, REPOSITORY / "scripts/report.py", "--flasheva", PROGRAM, *arguments],
                          env=ENVIRONMENT, capture_output=True, text=True, check=False)


def page_of(*arguments, output: Path) -> str:
    done = report(*arguments)
    assert done.returncode == 0, done.stderr
    return output.read_text(encoding="utf-8")


def figures_in(page: str) -> list[tuple[list, dict]]:
    """(traces, layout) of every figure."""
    decoder, figures = json.JSONDecoder(), []
    for match in re.finditer(r'Plotly\.newPlot\(\s*"[0-9a-f-]+",\s*', page):
        traces, end = decoder.raw_decode(page, match.end())
        layout, _ = decoder.raw_decode(page, re.compile(r",\s*").match(page, end).end())
        figures.append((traces, layout))
    return figures


def headings_in(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def rows_in(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    return [re.findall(r"<t[dh]>(.*?)</t[dh]>", row) for row in rows]


def test_report_of_a_whole_run(folder):
    run = folder / "tuned"
    page = page_of(run, output=run / "report.html")
    assert headings_in(page) == ["Stages", "Loss", "Training", "Attention error by layer", "Sample", "Machine",
                                 "Configuration"]
    assert "<h1>tuned &amp; swapped</h1>" in page
    assert "finished after 120 steps" in page
    assert re.search(r"<h3>tuned</h3><pre>The ", page)

    entries = metrics(run)
    loss, lr, norm, speed, memory, damage = figures_in(page)
    for (traces, _), keys in ((loss, ("loss", "validation_loss")), (lr, ("lr",)), (norm, ("grad_norm",)),
                              (speed, ("tokens_per_second",))):
        for trace, key in zip(traces, keys, strict=True):
            assert trace["x"] == [entry["run_step"] for entry in entries if key in entry]
            assert trace["y"] == [entry[key] for entry in entries if key in entry]
    assert memory[1]["yaxis"]["title"]["text"] == "peak memory (GiB)"
    assert [(trace["name"], trace["y"]) for trace in damage[0]] == list(
        zip(("swapped", "attention_warmup", "full_finetune"),
            [entry["attention_error"] for entry in entries if "attention_error" in entry], strict=True))
    assert [a["text"] for a in loss[1]["annotations"]] == ["attention_warmup", "full_finetune"]


def test_stage_table_holds_the_last_validation_of_each_phase(folder):
    run = folder / "tuned"
    page = page_of(run, "--no-sample", output=run / "report.html")
    header, *rows = rows_in(page)[:4]
    assert [row[:4] for row in rows] == [["tuned", "swapped", "–", "–"],
                                         ["tuned", "attention_warmup", "60", "7,680"],
                                         ["tuned", "full_finetune", "60", "7,680"]]
    validations = {(entry["phase"], entry["step"]): entry for entry in metrics(run) if "validation_loss" in entry}
    for row, key in zip(rows, [("attention_warmup", 0), ("attention_warmup", 60), ("full_finetune", 60)]):
        entry = validations[key]
        assert row[header.index("validation loss")] == f"{entry['validation_loss']:.4f}"
        assert row[header.index("perplexity")] == f"{numpy.exp(entry['validation_loss']):.3f}"
        # the bytes tokenizer: one byte a token
        assert row[header.index("bits per byte")] == f"{entry['validation_loss'] / numpy.log(2):.4f}"


def test_report_needs_no_network(folder):
    page = page_of(folder / "tuned", "--no-sample", output=folder / "tuned/report.html")
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="?http', page)


def test_report_of_one_phase_without_validation(folder):
    run = folder / "scratch"
    page = page_of(run, "--no-sample", output=run / "report.html")
    assert headings_in(page) == ["Stages", "Loss", "Training", "Machine", "Configuration"]
    assert "No validation" in page
    assert len(figures_in(page)) == 5
    assert [row[1:3] for row in rows_in(page)[1:2]] == [["pretrain", "6"]]


def test_report_of_an_interrupted_run(folder, tmp_path):
    lines = (folder / "tuned/metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:30]))
    shutil.copy(folder / "tuned/run.json", tmp_path)
    page = page_of(tmp_path, output=tmp_path / "report.html")
    assert re.search(r"2\d of 120 steps so far", page)
    assert re.search(r"<td>2\d of 60</td>", page)
    assert "the run has not finished" in page


def test_report_of_what_an_earlier_version_left(folder, tmp_path):
    lines = (folder / "tuned/metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(line for line in lines if '"loss"' in line))
    assert headings_in(page_of(tmp_path, "--no-sample", output=tmp_path / "report.html"))[:3] == [
        "Stages", "Loss", "Training"]


def test_report_of_several_runs(folder, tmp_path):
    page = page_of(folder / "tuned", folder / "killed", "--no-sample", "--output", tmp_path / "both.html",
                   output=tmp_path / "both.html")
    loss, *_, damage = figures_in(page)
    assert [trace["name"] for trace in loss[0]] == ["tuned, training", "tuned, validation", "killed, training",
                                                    "killed, validation"]
    assert len(damage[0]) == 6
    assert [trace["name"] for trace in damage[0] if trace["showlegend"]] == ["swapped", "attention_warmup",
                                                                              "full_finetune"]


def test_report_leaves_out_what_was_rolled_back(folder, tmp_path):
    lines = (folder / "scratch/metrics.jsonl").read_text().splitlines(keepends=True)
    warning = '{"phase":"pretrain","step":6,"run_step":6,"warning":"loss <leaps>","updated":false}\n'
    back = '{"phase":"pretrain","rolled_back_to_step":4}\n'
    (tmp_path / "metrics.jsonl").write_text("".join([*lines, warning, back]))
    page = page_of(tmp_path, "--no-sample", output=tmp_path / "report.html")
    assert figures_in(page)[0][0][0]["x"] == [1, 2, 3, 4]
    assert ["pretrain", "6", "loss &lt;leaps&gt;"] in [row[1:] for row in rows_in(page)]


@pytest.mark.parametrize("line", ["{\"loss\": 1", "[1]", "nonsense"])
def test_a_broken_line_is_named(folder, tmp_path, line):
    lines = (folder / "tuned/metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines[:2], line, *lines[2:]]))
    done = report(tmp_path)
    assert done.returncode == 3
    assert f"{tmp_path}/metrics.jsonl:3: not a JSON object" in done.stderr
    assert "delete the line" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_no_run_is_named(tmp_path):
    done = report(tmp_path)
    assert done.returncode == 3
    assert f"{tmp_path}/metrics.jsonl: not there" in done.stderr
    (tmp_path / "metrics.jsonl").write_text("")
    assert "holds no entry yet" in report(tmp_path).stderr
