"""What all comparisons share: running `flasheva bench`, and naming machine and commit beside the figures."""

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "benchmarks" / "configs"
THREADS = int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0))


# The first step's loss, in nats a token, may differ by so much between our program and PyTorch, which begin with the same
# weights and tokens. In float32 the sums are in another order. In bfloat16 a rounding of 2^-9 at every operation moves a
# token's logits by some 1 % of their spread, 0.2 to 0.9 in untrained models, to either side: in the mean over thousands
# of tokens little of it is left, 1.5e-4 at most where it was tried on a CPU. Other weights or tokens move that mean by
# about the spread over the square root of the tokens: by 5e-3 and more there, by 3e-3 to 1e-2 at the sizes of a GPU.
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 1e-3}


def run_flasheva(binary: Path, arguments: list, seconds: float | None) -> None:
    command = [str(binary), "bench", *arguments, "--threads", str(THREADS)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"over its {seconds:.0f} s: {shlex.join(command)}") from None
    if done.returncode != 0:
        message = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(f"exit {done.returncode} of {shlex.join(command)}: {' '.join(message)}")


def run_bench(binary: Path, arguments: list, seconds: float | None = None) -> dict:
    """The figures of one `flasheva bench`, which is stopped after `seconds`: a GPU can hang, a CPU is only slow."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        run_flasheva(binary, [*arguments, "--json", str(figures)], seconds)
        return json.loads(figures.read_text())


@contextmanager
def start_of(binary: Path, arguments: list, seconds: float | None = None):
    """A folder, gone afterwards, with the model and the tokens that `flasheva bench step` begins with. In memory, where
    that has room: a large model's weights are 6 GB."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 16 << 30
    with tempfile.TemporaryDirectory(dir=memory if roomy else None) as folder:
        start = Path(folder) / "start"
        run_flasheva(binary, [*arguments, "--write-start", str(start)], seconds)
        yield start


def check_first_losses(ours: float, theirs: float, precision: str) -> None:
    if not abs(ours - theirs) <= LOSS_TOLERANCE[precision]:  # NaN too
        raise RuntimeError(
            f"first loss {ours:.6f} by flasheva, {theirs:.6f} by PyTorch: over {LOSS_TOLERANCE[precision]} apart"
        )


def machine() -> dict:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.M).group(1).split()
    name = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.M).group(1)
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "cpu": name,
        "threads": THREADS,
        "instruction_sets": [flag for flag in wanted if flag in flags],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.platform(),
    }


def machine_line(info: dict) -> str:
    return (
        f"{info['cpu']}, {info['threads']} threads, {', '.join(info['instruction_sets'])}, "
        f"{info['memory_gib']} GiB; {info['system']}"
    )


def git(*arguments: str) -> str:
    """What git prints: nothing without git, or without a repository."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


def commit() -> str:
    """Of these files; FLASHEVA_COMMIT says it where they were carried without their history."""
    return os.environ.get("FLASHEVA_COMMIT") or git("describe", "--always", "--dirty") or "unknown"


def write_report(report: dict, markdown: str, name: str, folder: Path) -> Path:
    """Writes MACHINE-NAME.md and .json; the path without its ending. A machine is its GPU, where that is measured."""
    folder.mkdir(parents=True, exist_ok=True)
    machine_name = report["machine"].get("gpu") or report["machine"]["cpu"]
    slug = re.sub(r"[^a-z0-9]+", "-", machine_name.lower()).strip("-")
    path = folder / f"{slug}-{name}"
    path.with_name(path.name + ".json").write_text(json.dumps(report, indent=1) + "\n")
    path.with_name(path.name + ".md").write_text(markdown)
    return path
