"""The tables of scripts/gpu_check.sh, in Markdown, from its folder of logs and figures; the shortest come last.

    python3 scripts/summarize_gpu_check.py FOLDER

Whatever is missing or unreadable is left out: a part that failed must not hide the others.
"""

import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

FOLDER = Path(sys.argv[1])


def log_of(name: str) -> str:
    path = FOLDER / f"{name}.log"
    return path.read_text(errors="replace") if path.is_file() else ""


def figures_of(part: str) -> dict:
    """{name: figures} of the part's JSON files."""
    figures = {}
    for path in sorted(FOLDER.glob(f"{part}-*.json"), key=lambda path: path.stat().st_mtime):
        try:
            figures[path.stem.removeprefix(f"{part}-")] = json.loads(path.read_text())
        except ValueError:  # cut off by its time limit
            pass
    return figures


def detail(part: str, name: str, fate: str) -> str:
    """What the log says in short: counts of tests, the sanitizer's verdict, or why it failed."""
    log = log_of(f"{part}-{name}")
    counts: Counter = Counter()  # over all processes of the step
    for verdict, count in re.findall(r"^\[  (PASSED|FAILED|SKIPPED) +\] (\d+) tests?", log, re.M):
        counts[verdict.lower()] += int(count)
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", log)
    compared = re.findall(r"^.*, allowed .*", log, re.M)
    words = [f"{count} {verdict}" for verdict, count in counts.items()] + summary[-1:] + compared
    if fate != "passed" and not words:
        words += log.strip().splitlines()[-1:]
    return "; ".join(words).replace("|", "/")[:200]


def table(head: str, rows: list) -> list:
    if not rows:
        return []
    columns = head.split(" | ")
    rule = ["---"] + ["---:"] * (len(columns) - 1)
    return [f"| {' | '.join(row)} |" for row in (columns, rule, *rows)] + [""]


def fates() -> list:
    rows = []
    for line in (FOLDER / "steps.tsv").read_text().splitlines():
        part, name, fate, seconds = line.split("\t")
        rows.append([part, name, fate, seconds, detail(part, name, fate)])
    return ["## What ran", "", *table("part | step | outcome | seconds | detail", rows)]


def failed_tests() -> list:
    """Those that failed, and those that began and did not end: a crash, a hang. Of a program that was run suite by
    suite only what that says: a fault of the GPU fails all later tests of its process."""
    lines = []
    for path in sorted(FOLDER.glob("tests-*.log")):
        if path.with_name(f"{path.stem}-by-suite.log").is_file():
            continue
        log = path.read_text(errors="replace")
        verdicts: dict = {}
        for verdict, name in re.findall(r"^\[ +(RUN|OK|FAILED|SKIPPED) +\] ([^\s,]+\.[^\s,]+)", log, re.M):
            verdicts[name] = verdict
        words = {"RUN": ", which did not end", "FAILED": ""}
        program = path.stem.removeprefix("tests-")
        lines += [f"- {program}: {name}{words[verdict]}" for name, verdict in verdicts.items() if verdict in words]
    return ["## Failed tests", "", *lines, ""] if lines else []


def profile(name: str, f: dict, longest: int = 12) -> list:
    rows = []
    for operation in f["operations"][:longest]:
        flops, share = operation["flops_per_second"] / 1e12, operation["seconds"] / f["seconds_per_step"]
        rows.append([operation["operation"], f"{operation['calls']:g}", f"{1e3 * operation['seconds']:.2f}"])
        rows[-1] += [f"{share:.1%}", f"{flops:.1f}" if flops else "", f"{operation['bytes_per_second'] / 1e9:.0f}"]
    copy = f" (copy peak {f['copy_peak_bytes_per_second'] / 1e9:.0f} GB/s)" if "copy_peak_bytes_per_second" in f else ""
    return [f"{name}{copy}:", "", *table("operation | calls | ms | share | TFLOP/s | GB/s", rows)]


def profiles() -> list:
    """Where the time goes, operation by operation."""
    lines = []
    for part in ("steps", "decode"):
        for name, f in figures_of(part).items():
            lines += profile(f"{part} {name}", f) if "operations" in f else []
    return lines


def steps() -> list:
    rows = []
    for name, f in figures_of("steps").items():
        if "operations" in f:
            continue
        peak = f["gemm_peak_flops_per_second"] / 1e12
        rows.append([name, f"{1e3 * f['seconds_per_step']:.1f}", f"{f['tokens_per_second']:.0f}"])
        rows[-1] += [f"{f['model_flops_per_second'] / 1e12:.1f}", f"{peak:.0f}", f"{f['share_of_peak']:.1%}"]
    head = "training step, bf16 | ms | tokens/s | model TFLOP/s | GEMM peak, TFLOP/s | share"
    return table(head, rows)


def attention() -> list:
    rows = []
    for name, f in figures_of("attention").items():
        forward, backward = f["milliseconds_forward"], f["milliseconds_backward"]
        rows.append([name, f"{forward:.3f}", f"{backward:.3f}", f"{f['flops_per_second'] / 1e12:.1f}"])
        rows[-1].append(f"{f['share_of_peak']:.1%}")
    return table("attention alone, bf16, 16 heads of 64 | forward, ms | backward, ms | TFLOP/s | share of GEMM peak", rows)


def decode() -> list:
    rows = []
    for name, f in figures_of("decode").items():
        if "operations" in f:
            continue
        rows.append([name, f"{f['tokens_per_second']:.0f}", f"{1e3 * f['seconds_per_step']:.3f}"])
        rows[-1] += [f"{f['cache_bytes'] / 2**20:.0f}", f"{f['share_of_limit']:.1%}"]
    return table("generation, bf16 | tokens/s | ms a step | cache, MiB | share of limit", rows)


def against_pytorch() -> list:
    """The comparison's own report."""
    return [line for path in FOLDER.glob("*against-pytorch*.md") for line in [path.read_text()]]


def section(make) -> list:
    try:
        return make()
    except (KeyError, ValueError, TypeError, OSError) as error:
        return [f"({make.__name__}: {type(error).__name__}: {error})", ""]


def main() -> None:
    gpu = re.search(r"(NVIDIA [A-Z0-9][^|]*?)  ", log_of("machine-gpu"))
    print(f"# gpu_check at commit {os.environ.get('FLASHEVA_COMMIT', 'unknown')}, {gpu[1] if gpu else 'no GPU seen'}\n")
    for make in (profiles, fates, failed_tests, steps, attention, decode, against_pytorch):
        print("\n".join(section(make)))


if __name__ == "__main__":
    main()
