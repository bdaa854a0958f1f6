"""Weak scaling: measured on the CPU ranks of this machine, and a model of many GPUs.

    python3 benchmarks/scaling.py ranks                              mpirun with 1, 2, 4 ... ranks up to the cores
    python3 benchmarks/scaling.py model STEP.json CONFIG             8 to 1,024 GPUs, from a measured step

`ranks` trains benchmarks/configs/eva.yaml on random bytes, the same number of sequences and one thread a rank, and
writes benchmarks/results/MACHINE-scaling-DATE.md and .json. The step of each number of ranks is the median of several
runs in turn.

`model` reads what `flasheva bench step CONFIG --json STEP.json` measured on one GPU and prints what more of them
would take if its assumptions held; it measures nothing. STEP.json must come from the machine that is asked about.
"""

import argparse
import datetime
import json
import math
import random
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import CONFIGS, ROOT, commit, machine, machine_line, write_report

# --- measured: ranks of this machine -------------------------------------------------------------------------------


def seconds_per_step(options, ranks: int, folder: Path) -> float:
    """The median step of one run of `ranks` ranks."""
    output = folder / "run"
    sequences = ranks * options.sequences
    command = ["mpirun", "--allow-run-as-root", "--bind-to", "none", "-np", str(ranks), str(options.binary), "train"]
    command += [str(CONFIGS / "eva.yaml"), "--fresh", "--threads", "1", "--device", "cpu"]
    command += [f"run.output={output}", f"data.train={folder / 'tokens.h5'}", f"batch.sequences={sequences}"]
    command += [f"phases.0.steps={options.steps}", "log.every=1", "checkpoint.every=1000000", *options.overrides]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode} of {shlex.join(command)}: {done.stderr.strip()[-500:]}")
    lines = (json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines())
    speeds = [line["tokens_per_second"] for line in lines if line.get("step", 0) > 1 and "tokens_per_second" in line]
    return sequences * options.tokens / statistics.median(speeds)


def measure_ranks(options) -> dict:
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= machine()["threads"]]
    samples = {n: [] for n in counts}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random.seed(1)
        (folder / "tokens.txt").write_bytes(bytes(random.choices(range(32, 127), k=4_000_000)))
        prepare = [str(options.binary), "data", "prepare", "--input", str(folder / "tokens.txt"), "--tokenizer", "bytes"]
        subprocess.run([*prepare, "--output", str(folder / "tokens.h5")], check=True, capture_output=True)
        for _ in range(options.runs):
            for n in counts:
                samples[n].append(seconds_per_step(options, n, folder))
    return samples


def ranks_table(report: dict) -> str:
    samples = {int(n): s for n, s in report["samples"].items()}
    alone = statistics.median(samples[1])
    lines = [
        f"# Weak scaling on CPU ranks, {report['machine']['cpu']}, {report['date']}",
        "",
        f"- Machine: {machine_line(report['machine'])}",
        f"- Commit: {report['commit']}",
        f"- Command: `{report['command']}`",
        f"- benchmarks/configs/eva.yaml, {report['sequences']} sequence(s) and one thread a rank, Open MPI on one machine",
        "",
        "Efficiency: the step of one rank over the step of N, each with the same work a rank; the median of "
        f"{report['runs']} runs in turn. Ranks of one machine also share its memory and clock.",
        "",
        "| ranks | seconds a step | efficiency |",
        "| ---: | ---: | ---: |",
    ]
    for n, seconds in samples.items():
        ratio = statistics.median(one / own for one, own in zip(samples[1], seconds))
        lines.append(f"| {n} | {statistics.median(seconds):.3f} | {ratio:.0%} |")
    return "\n".join(lines) + f"\n\nOne rank alone: {alone:.3f} s a step.\n"


def run_ranks(options) -> int:
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "commit": commit(),
        "command": shlex.join(["python", *sys.argv]),
        "sequences": options.sequences,
        "runs": options.runs,
        "samples": measure_ranks(options),
    }
    text = ranks_table(report)
    print(text)
    print(f"{write_report(report, text, 'scaling-' + report['date'], options.output)}.md")
    return 0


# --- a model: many GPUs --------------------------------------------------------------------------------------------

ASSUMPTIONS = """\
Assumptions:
- Every GPU takes as long for a step as the one measured ({seconds:.4f} s), whatever its place.
- A sum over N GPUs is a ring: reduce-scatter and all-gather each move (N - 1) / N of the {megabytes:.0f} MB of gradients
  through the slowest link on the way ({inside:g} GB/s a GPU within a node of {node}, {outside:g} GB/s a GPU between nodes),
  and each bucket of {bucket:.0f} MB pays {latency:g} us for every doubling of N, twice.
- Sums run beside the backward pass, two thirds of the step; only the last bucket, final when the backward pass is,
  cannot. What does not fit beside it is added to the step.
- Nothing else grows with N: no stragglers, no congestion, data at hand.
"""
BUCKET_ELEMENTS = 4 << 20  # GradientSum::bucket_elements


def trained_parameters(options) -> int:
    """Of the config's last phase, as `flasheva plan` counts them."""
    plan = [str(options.binary), "plan", str(options.config), "--device", "cpu", *options.overrides]
    text = subprocess.run(plan, check=True, capture_output=True, text=True).stdout
    return int(re.findall(r"(\d+) parameters trained", text)[-1])


def model_step(gpus: int, seconds: float, elements: int, options) -> float:
    bandwidth = (options.inside if gpus <= options.node else options.outside) * 1e9
    bytes_each = 2 if options.reduce_dtype == "bf16" else 4
    latency = 2 * options.latency * 1e-6 * math.log2(gpus)

    def sum_of(count: int) -> float:
        return 2 * count * bytes_each * (gpus - 1) / gpus / bandwidth + latency

    buckets = math.ceil(elements / BUCKET_ELEMENTS)
    last = elements - (buckets - 1) * BUCKET_ELEMENTS
    beside = (buckets - 1) * sum_of(BUCKET_ELEMENTS)
    return seconds + max(0.0, beside - seconds * 2 / 3) + sum_of(last)


def run_model(options) -> int:
    step = json.loads(options.step.read_text())
    seconds, tokens = step["seconds_per_step"], step["tokens_per_second"] * step["seconds_per_step"]
    elements = trained_parameters(options)
    size = 2 if options.reduce_dtype == "bf16" else 4
    print(f"A model, not a measurement: {options.config.name}, {elements} trained parameters, gradients in {options.reduce_dtype}")
    print(ASSUMPTIONS.format(seconds=seconds, megabytes=elements * size / 1e6, bucket=BUCKET_ELEMENTS * size / 1e6, **vars(options)))
    print("| GPUs | seconds a step | tokens/s | efficiency |\n| ---: | ---: | ---: | ---: |")
    for gpus in (8, 16, 32, 64, 128, 256, 512, 1024):
        taken = model_step(gpus, seconds, elements, options)
        print(f"| {gpus} | {taken:.4f} | {gpus * tokens / taken:.3g} | {seconds / taken:.0%} |")
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "build/release/flasheva")
    kinds = parser.add_subparsers(required=True)
    ranks = kinds.add_parser("ranks", help="measure ranks of this machine")
    ranks.add_argument("--sequences", type=int, default=1, help="of every rank and step")
    ranks.add_argument("--tokens", type=int, default=2048, help="of a sequence, as the config says")
    ranks.add_argument("--steps", type=int, default=8)
    ranks.add_argument("--runs", type=int, default=3, help="of each number of ranks; the median counts")
    ranks.add_argument("--output", type=Path, default=ROOT / "benchmarks/results")
    ranks.add_argument("overrides", nargs="*", help="KEY=VALUE for the config")
    ranks.set_defaults(run=run_ranks)
    model = kinds.add_parser("model", help="extrapolate a measured step")
    model.add_argument("step", type=Path, help="what `flasheva bench step --json` wrote")
    model.add_argument("config", type=Path)
    model.add_argument("overrides", nargs="*", help="KEY=VALUE for the config")
    model.add_argument("--node", type=int, default=8, help="GPUs of a node")
    model.add_argument("--inside", type=float, required=True, help="GB/s of a GPU's link within a node")
    model.add_argument("--outside", type=float, required=True, help="GB/s of a GPU's share of the link between nodes")
    model.add_argument("--latency", type=float, default=10, help="us of one hop of a sum")
    model.add_argument("--reduce-dtype", choices=("fp32", "bf16"), default="fp32")
    model.set_defaults(run=run_model)
    return parser.parse_args()


if __name__ == "__main__":
    parsed = parse_options()
    sys.exit(parsed.run(parsed))
