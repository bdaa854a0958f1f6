"""The summary of scripts/gpu_check.sh, from figures made up so that every number of its last table is known, and from a
part that runs without a GPU.

    pytest tests/python/test_gpu_check_summary.py
"""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import flasheva
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PEAKS = {"copy_peak_bytes_per_second": 4e12, "gemm_peak_flops_per_second": 8e14}


def operation(name: str, calls: float, seconds: float, bytes_moved: float, flops: float = 0) -> dict:
    amounts = {"operation": name, "calls": calls, "seconds": seconds, "bytes": bytes_moved, "flops": flops}
    rates = {"bytes": bytes_moved / seconds, "flops": flops / seconds} if seconds else {"bytes": 0, "flops": 0}
    return amounts | {f"{name}_per_second": rate for name, rate in rates.items()}


def step(tokens_per_second: float, share: float) -> dict:
    speed = share * PEAKS["gemm_peak_flops_per_second"]
    return {"phase": "step", "seconds_per_step": 32768 / tokens_per_second, "tokens_per_second": tokens_per_second,
            "model_flops_per_second": speed, "share_of_peak": share} | PEAKS  # fmt: skip


def attention(kind: str, milliseconds: tuple, operations: list) -> dict:
    flops = sum(o["flops"] for o in operations)
    forward, backward = milliseconds
    return {"kind": kind, "batch": 8, "tokens": 8192, "milliseconds_forward": forward, "milliseconds_backward": backward,
            "flops_per_second": 1e3 * flops / (forward + backward), "operations": operations} | PEAKS  # fmt: skip


def decode(tokens_per_second: float, share: float, gpu_mib: int) -> dict:
    return {"tokens_per_second": tokens_per_second, "seconds_per_step": 32 / tokens_per_second, "share_of_limit": share,
            "cache_bytes": 3 << 20, "gpu_memory_bytes": gpu_mib << 20, "memory_peak_bytes_per_second": 4e12, "gemm_peak_flops_per_second": 8e14}  # fmt: skip


# Of the step: 12 products of 0.8 TFLOP, 1 ms at the peak each, in 1.6 ms; the other shape's are bound by their bytes,
# 0.5 ms, and take 0.7; AdamW's 4 GB are 1 ms, in 1.25 ms; the cast was too short to be told.
STEP_OPERATIONS = [
    operation("linear_forward 32768x768x3072", 12, 12 * 1.6e-3, 12 * 1e9, 12 * 8e11),
    operation("linear_forward 32768x768x8", 2, 2 * 0.7e-3, 2 * 2e9, 2 * 1e9),
    operation("adamw", 1, 1.25e-3, 4e9),
    operation("cast", 3, 0, 3e6),
]
# 0.32 TFLOP are 0.4 ms, and 6 GB 1.5 ms: bound by bytes, all the more with the 2 GB of the pass over qkv. Full attention's
# 4 TFLOP are 5 ms.
EVA_OPERATIONS = [
    operation("attention_backward 8x16x8192x64", 1, 1.2e-3, 4e9, 2.3e11),
    operation("attention_forward 8x16x8192x64", 1, 0.8e-3, 2e9, 0.9e11),
    operation("qkv_summary_forward 8x16x8192x64", 1, 0.6e-3, 2e9),
]
FULL_OPERATIONS = [operation("attention_forward 8x16x8192x64", 1, 16e-3, 1e9, 4e12)]
COMPARISON = {
    "machine": {"gpu": "NVIDIA H200"},
    "peaks": {"gemm_flops_per_second": 7e14, "copy_bytes_per_second": 4e12},
    "rows": [
        {"row": "step, 160M", "target": 1.3, "failed": {}, "flops": 4e13, "our_seconds": 0.1, "pytorch_seconds": 0.15,
         "ratio": 1.5, "our_gemm_peak": 8e14, "our_first_loss": 10.98, "pytorch_first_loss": 10.9804},
        {"row": "step, 1.4B", "target": 1.3, "failed": {"all": "RuntimeError: first loss 1 by flasheva"}, "flops": 1e14},
    ],
}  # fmt: skip
FILES = {
    "steps-160m-eva": step(400_000, 0.5),
    "steps-160m-full": step(320_000, 0.4),
    "steps-160m-eva-operations": step(300_000, 0.4) | {"operations": STEP_OPERATIONS},
    "steps-160m-full-operations": step(200_000, 0.3) | {"operations": STEP_OPERATIONS},
    "attention-eva-8192": attention("eva", (0.8, 1.7), EVA_OPERATIONS),
    "attention-full-8192": attention("full", (6, 14), FULL_OPERATIONS),
    "decode-160m-eva-block": decode(70_000, 0.8, 2000),
    "decode-160m-full": decode(10_000, 0.9, 12000),
    "nvidia-h200-against-pytorch-2026-11-22": COMPARISON,
}
ROWS = """
steps 160m-eva: linear_forward x 14 | 1.47 ms | 776.7 GB/s, 466.1 TFLOP/s | 63.1% GEMM | 1.58 |  |
steps 160m-eva: adamw x 1 | 1.25 ms | 3200 GB/s | 80.0% copy | 1.25 |  |
attention eva-8192: forward + backward and the passes over qkv, a sequence | 312.5 us | 3200 GB/s, 128 TFLOP/s | 80.0% copy | 1.25 |  | <= 114 us
attention eva-8192: forward + backward, a sequence | 250.0 us | 3000 GB/s, 160 TFLOP/s | 75.0% copy | 1.33 |  | <= 114 us
attention eva-8192: attention_backward x 1 | 1.20 ms | 3333 GB/s, 191.7 TFLOP/s | 83.3% copy | 1.20 |  |
attention eva-8192: attention_forward x 1 | 800.0 us | 2500 GB/s, 112.5 TFLOP/s | 62.5% copy | 1.60 |  |
attention eva-8192: qkv_summary_forward x 1 | 600.0 us | 3333 GB/s | 83.3% copy | 1.20 |  |
attention full-8192: forward + backward, a sequence | 2.50 ms | 50 GB/s, 200 TFLOP/s | 25.0% GEMM | 4.00 |  |
step 160m-eva | 81.92 ms | 400000 tokens/s, 400 TFLOP/s | 50.0% GEMM | 2.00 |  | >= 50 %
step 160m-full | 102.40 ms | 320000 tokens/s, 320 TFLOP/s | 40.0% GEMM | 2.50 |  | >= 50 %
decode 160m-eva-block | 457.1 us | 70000 tokens/s, cache 3 MiB, GPU 2000 MiB | 80.0% bytes | 1.25 |  | >= 80 %
decode 160m-full | 3.20 ms | 10000 tokens/s, cache 3 MiB, GPU 12000 MiB | 90.0% bytes | 1.11 |  |
FlashEVA over full: attention, T 8192, without the passes over qkv |  |  |  |  | 8.00 | >= 8
FlashEVA over full: decode, block window |  |  |  |  | 7.00 | >= 6.7
FlashEVA over full: decode, block window, times less GPU memory |  |  |  |  | 6.00 | >= 5
against PyTorch: step, 160M | 100.00 ms | 400 TFLOP/s; PyTorch 150.00 ms; first loss 10.98000, PyTorch 10.98040 | 50.0% GEMM | 2.00 | 1.50 | >= 1.3
against PyTorch: step, 1.4B |  | not measured: RuntimeError: first loss 1 by flasheva |  |  |  | >= 1.3
"""  # noqa: E501


@pytest.fixture
def folder(tmp_path) -> Path:
    results = tmp_path / "results"
    results.mkdir()
    for name, figures in FILES.items():
        (results / f"{name}.json").write_text(json.dumps(figures))
    (results / "steps.tsv").write_text("steps\t160m-eva\tpassed\t7\ntests\ttest_model_cuda\tfailed, exit 1\t3\n")
    (results / "tests-test_model_cuda.log").write_text("[ RUN      ] Model.Trains\n[  FAILED  ] Model.Trains (3 ms)\n")
    (results / "nvidia-h200-against-pytorch-2026-11-22.md").write_text("# flasheva against PyTorch\n")
    (results / "commit").write_text("abc1234\n")
    return results


def summarize(*arguments) -> str:
    command = [sys.executable, REPOSITORY / "scripts/summarize_gpu_check.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def last_table(summary: str) -> list:
    """Its rows, without the head."""
    lines = summary.rstrip().splitlines()
    first = max(i for i, line in enumerate(lines) if not line.startswith("|")) + 1
    assert lines[first].startswith("| measured |")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first + 2 :]]


def test_the_last_table_holds_every_number(folder):
    expected = [[cell.strip() for cell in line.split("|")] for line in ROWS.strip().splitlines()]
    assert last_table(summarize(folder)) == expected


def test_what_ran_and_what_failed_stands_above_it(folder):
    summary = summarize(folder)
    assert summary.startswith("# gpu_check at commit abc1234, NVIDIA H200\n")
    assert "| tests | test_model_cuda | failed, exit 1 | 3 |" in summary
    assert "- test_model_cuda: Model.Trains\n" in summary
    places = [summary.index(head) for head in ("## What ran", "# flasheva against PyTorch", "## What was measured")]
    assert places == sorted(places)


def test_an_unreadable_file_spoils_its_own_row_alone(folder):
    (folder / "attention-eva-8192.json").write_text('{"kind": "eva", "milliseconds_forward": 1}')
    (folder / "steps-160m-eva.json").write_text('{"seconds_per')  # cut off
    rows = last_table(summarize(folder))
    assert ["attention-eva-8192", "", "unreadable: KeyError: 'operations'"] in [row[:3] for row in rows]
    assert len(rows) == len(ROWS.strip().splitlines()) - 5  # four of the one, the step of the other
    assert sum(row[0].startswith("step 160m-eva") for row in rows) == 0
    assert sum(row[0].startswith("step 160m-full") for row in rows) == 1


def test_several_calls_become_one_result(folder, tmp_path):
    """The steps of one call, packed as gpu_check.sh does it, and all else of another."""
    packed = tmp_path / "steps"
    packed.mkdir()
    with tarfile.open(packed / "results.tar.gz", "w:gz") as archive:
        for path in folder.glob("steps*"):
            archive.add(path, f"./{path.name}")
    for path in folder.glob("steps*"):
        path.unlink()
    said = summarize(packed, folder, "--output", tmp_path / "stored")
    markdown, figures = sorted((tmp_path / "stored").iterdir(), reverse=True)
    assert said == f"{markdown}\n"
    assert markdown.name.startswith("nvidia-h200-gpu-check-20")
    assert len(last_table(markdown.read_text())) == len(ROWS.strip().splitlines())
    assert json.loads(figures.read_text())["figures"] == FILES


def test_a_part_runs_without_a_gpu(tmp_path):
    """From the command line to the table, with a package that holds the program alone."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package/flasheva").symlink_to(flasheva.PROGRAM.resolve())
    (tmp_path / "package/commit").write_text("abc1234\n")
    command = [REPOSITORY / "scripts/gpu_check.sh", "--try-on-cpu", "--parts", "machine,attention"]
    done = subprocess.run([*command, tmp_path / "package", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = (tmp_path / "out/machine-attention/summary.md").read_text()
    assert done.stdout.endswith(summary)
    rows = {row[0]: row for row in last_table(summary)}
    assert [name for name in rows if "qkv" in name] == [
        f"attention eva-512{one}: forward + backward and the passes over qkv, a sequence" for one in ("", "-one-sequence")
    ]
    full = rows["attention full-512: forward + backward, a sequence"]
    assert len(rows) == 6 and all(full[1:5])
