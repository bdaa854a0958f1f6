"""Compares generation with FlashEVA's cache to a full cache: our own, and what transformers' `generate` does.

    python3 benchmarks/decode.py                                  (--quick: a smoke run at small sizes)
    .venv/bin/python benchmarks/decode.py --transformers          (with torch and transformers)

Needs build/release/flasheva. All sides run one after the other, as often as there are pairs, each in a process of its
own: its peak memory is that of the variant alone. Writes benchmarks/results/MACHINE-decode-DATE.md and .json.
"""

import argparse
import datetime
import json
import re
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common import CONFIGS, ROOT, git, machine, machine_line, run_bench, write_report

# hidden size, layers, heads, intermediate size of Pythia
SHAPES = {"70m": (512, 6, 8, 2048), "160m": (768, 12, 12, 3072), "410m": (1024, 24, 16, 4096)}
# model.attention of each variant; the full cache is what the others are compared with
VARIANTS = {
    "full": ["default=full"],
    "eva block": ["default=eva", "window_kind=block"],
    "eva sliding": ["default=eva", "window_kind=sliding"],
    "eva sliding W 128": ["default=eva", "window_kind=sliding", "window=128"],
}


@dataclass(frozen=True)
class Row:
    """`batch` sequences of `context` tokens each, continued by `new_tokens`."""

    shape: str
    batch: int
    context: int
    new_tokens: int = 1024
    transformers: bool = False  # also compared with transformers, where that is asked for


ROWS = (
    Row("160m", 32, 4096, transformers=True),
    Row("160m", 8, 4096, transformers=True),
    Row("160m", 1, 4096, transformers=True),
    Row("160m", 32, 1024),
    Row("160m", 8, 1024, 10240),
    Row("160m", 4, 32768),
    Row("70m", 32, 4096),
    Row("70m", 1, 1024),
    Row("410m", 8, 4096),
)
QUICK_ROWS = (Row("70m", 2, 64, 16, transformers=True),)


def bench_arguments(row: Row, variant: str, options) -> list:
    hidden, layers, heads, intermediate = SHAPES[row.shape]
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    sizes["intermediate_size"] = intermediate
    config = str((CONFIGS / "decode.yaml").relative_to(ROOT))
    overrides = [f"model.architecture.{name}={value}" for name, value in sizes.items()]
    overrides += [f"model.attention.{setting}" for setting in VARIANTS[variant]]
    flags = {"batch": row.batch, "context": row.context, "new-tokens": row.new_tokens}
    flags |= {"steps": options.steps, "precision": options.precision}
    return ["decode", config, *overrides, *(w for k, v in flags.items() for w in (f"--{k}", str(v)))]


def run_transformers(row: Row, kind: str, options) -> dict:
    """What transformers_decode.py measures in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("transformers_decode.py"))]
    command += ["--kind", kind, "--batch", str(row.batch), "--context", str(row.context)]
    command += ["--shape", *map(str, SHAPES[row.shape]), "--precision", options.precision]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip() or "no output").splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def measure(row: Row, options) -> dict:
    """Samples of every variant, taken in turn."""
    sides = {}
    for name in VARIANTS:
        sides[name] = lambda name=name: run_bench(options.binary, bench_arguments(row, name, options))
    if options.transformers and row.transformers:
        for kind in ("full", "eva"):
            sides[f"transformers {kind}"] = lambda kind=kind: run_transformers(row, kind, options)
    samples = {name: [] for name in sides}
    failed = {}
    for _ in range(options.pairs):
        for name, side in sides.items():
            if name in failed:
                continue
            try:
                samples[name].append(side())
            except RuntimeError as error:  # a side that does not run must not hide the others
                failed[name] = str(error)
    return {"row": vars(row), "samples": {name: s for name, s in samples.items() if s}, "failed": failed}


def median_of(samples: list, key: str) -> float:
    return statistics.median(sample[key] for sample in samples)


def table_lines(result: dict) -> list:
    row, samples = result["row"], result["samples"]
    head = f"{row['shape']}, batch {row['batch']}, context {row['context']}, {row['new_tokens']} new"
    lines = []
    for name, own in samples.items():
        full = samples.get("full", [])
        ratio = statistics.median(o["tokens_per_second"] / f["tokens_per_second"] for o, f in zip(own, full)) if full else 0
        memory = median_of(full, "peak_memory_bytes") / median_of(own, "peak_memory_bytes") if full else 0
        cells = [head, name, f"{median_of(own, 'tokens_per_second'):.1f}", f"{ratio:.2f}"]
        cells += [f"{median_of(own, 'cache_bytes') / 2**20:.0f}"] if "cache_bytes" in own[0] else [""]
        cells += [f"{median_of(own, 'peak_memory_bytes') / 2**20:.0f}", f"{memory:.2f}"]
        cells += [f"{median_of(own, 'share_of_limit'):.0%}"] if "share_of_limit" in own[0] else [""]
        lines.append(f"| {' | '.join(cells)} |")
        head = ""
    lines += [f"| {head} | {name} | failed: {re.sub(r'[|]', '/', error)} | | | | | |" for name, error in result["failed"].items()]
    return lines


def markdown(report: dict) -> str:
    lines = [f"# Generation with FlashEVA's cache and with a full one, {report['machine']['cpu']}, {report['date']}", ""]
    lines += [
        f"- Machine: {machine_line(report['machine'])}",
        f"- Commit: {report['commit']}",
        f"- Command: `{report['command']}`",
        f"- {report['precision']}, W 256 where not said otherwise, P 16, random weights, caches filled with random values",
        "",
        f"Medians of {report['pairs']} runs in turn. Throughput and memory: times our own full cache. Limit: the time "
        "that the bytes of weights and cache and the products take at the machine's own peaks, as a share of the time "
        "taken.",
        "",
        "| row | variant | tokens/s | throughput | cache, MiB | peak memory, MiB | memory | of the limit |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in report["rows"]:
        lines += table_lines(result)
    return "\n".join(lines) + "\n"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "build/release/flasheva")
    parser.add_argument("--rows", default="", help="only rows whose description matches this regular expression")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--pairs", type=int, default=2, help="times that each side runs; the median counts")
    parser.add_argument("--steps", type=int, default=8, help="steps timed in each run")
    parser.add_argument("--transformers", action="store_true", help="also transformers' generate")
    parser.add_argument("--quick", action="store_true", help="small sizes, one run: does it all run?")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results")
    options = parser.parse_args()
    if not options.binary.is_file():
        parser.error(f"{options.binary} is missing: cmake --preset release && cmake --build --preset release")
    if options.quick:
        options.pairs, options.steps = 1, 2
    return options


def main() -> int:
    options = parse_options()
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "commit": git("describe", "--always", "--dirty"),
        "command": shlex.join(["python", *sys.argv]),
        "precision": options.precision,
        "pairs": options.pairs,
        "rows": [],
    }
    parts = ["decode", report["date"], "bf16" if options.precision == "bf16" else ""]
    name = "-".join(filter(None, [*parts, "transformers" if options.transformers else "", "quick" if options.quick else ""]))
    for row in QUICK_ROWS if options.quick else ROWS:
        if not re.search(options.rows, f"{row.shape}, batch {row.batch}, context {row.context}"):
            continue
        report["rows"].append(measure(row, options))
        print("\n".join(table_lines(report["rows"][-1])), flush=True)
        path = write_report(report, markdown(report), name, options.output)
    print(f"{path}.md")
    return int(any(result["failed"] for result in report["rows"]))


if __name__ == "__main__":
    sys.exit(main())
