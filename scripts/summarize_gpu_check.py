"""The summary of scripts/gpu_check.sh, in Markdown, from folders of logs and figures: the profiles, what ran, what
failed, and one table of all that was measured last.

    python3 scripts/summarize_gpu_check.py FOLDER...
    python3 scripts/summarize_gpu_check.py build/gpu-results/* --output benchmarks/results

FOLDER: what one call of gpu_check.sh left, results.tar.gz or its content. With --output, the summary of all of them
becomes MACHINE-gpu-check-DATE.md there, and the figures behind it MACHINE-gpu-check-DATE.json.

Whatever is missing or unreadable is left out: a part that failed must not hide the others.
"""

import argparse
import datetime
import json
import os
import re
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

import gpu_check_table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from common import write_report  # noqa: E402

FOLDERS: list = []  # with the logs and figures of a call each


def files(pattern: str) -> list:
    """Oldest first; a part that ran again comes behind its first time."""
    found = [path for folder in FOLDERS for path in folder.glob(pattern)]
    return sorted(found, key=lambda path: (path.stat().st_mtime, path.name))


def log_of(name: str) -> str:
    return "".join(path.read_text(errors="replace") for path in files(f"{name}.log")[-1:])


def all_figures() -> dict:
    """{name: figures} of every JSON file."""
    figures = {}
    for path in files("*.json"):
        try:
            figures[path.stem] = json.loads(path.read_text())
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
    for line in [line for path in files("steps.tsv") for line in path.read_text().splitlines()]:
        part, name, fate, seconds = line.split("\t")
        rows.append([part, name, fate, seconds, detail(part, name, fate)])
    return ["## What ran", "", *table("part | step | outcome | seconds | detail", rows)]


def failed_tests() -> list:
    """Those that failed, and those that began and did not end: a crash, a hang. Of a program that was run suite by
    suite only what that says: a fault of the GPU fails all later tests of its process."""
    lines = []
    for path in files("tests-*.log"):
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
    for name, f in all_figures().items():
        if "operations" in f and name.startswith(("steps-", "decode-")):
            lines += profile(name.replace("-", " ", 1), f)
    return lines


def against_pytorch() -> list:
    """The comparison's own report."""
    return [path.read_text() for path in files("*against-pytorch*.md")[-1:]]


def all_measured() -> list:
    lines = table(gpu_check_table.HEAD, gpu_check_table.rows(all_figures()))
    note = gpu_check_table.__doc__.split("\n\n")[1].strip().replace("\n", " ")
    return ["## What was measured", "", note, "", *lines] if lines else []


def section(make) -> list:
    try:
        return make()
    except (KeyError, ValueError, TypeError, OSError) as error:
        return [f"({make.__name__}: {type(error).__name__}: {error})", ""]


def gpu_name() -> str:
    gpu = re.search(r"(NVIDIA [A-Z0-9][^|]*?)  ", log_of("machine-gpu"))
    others = [f["machine"]["gpu"] for f in all_figures().values() if "gpu" in f.get("machine", {})]
    return gpu[1] if gpu else (*others, "no GPU seen")[0]


def commit() -> str:
    stored = [path.read_text().strip() for path in files("commit")]
    return ", ".join(dict.fromkeys(stored)) or os.environ.get("FLASHEVA_COMMIT", "unknown")


def summary() -> str:
    lines = [f"# gpu_check at commit {commit()}, {gpu_name()}", ""]
    for make in (profiles, fates, failed_tests, against_pytorch, all_measured):
        lines += section(make)
    return "\n".join(lines)


def store(folder: Path) -> None:
    newest = max((path.stat().st_mtime for path in files("*")), default=0)
    date = datetime.date.fromtimestamp(newest).isoformat()
    report = {"date": date, "commit": commit(), "machine": {"gpu": gpu_name()}, "figures": all_figures()}
    print(f"{write_report(report, summary(), f'gpu-check-{date}', folder)}.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, help="write MACHINE-gpu-check-DATE.md and .json to this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as unpacked:
        for i, folder in enumerate(options.folders):
            FOLDERS.append(folder)
            if (folder / "results.tar.gz").is_file():
                FOLDERS[-1] = Path(unpacked) / str(i)
                with tarfile.open(folder / "results.tar.gz") as archive:
                    archive.extractall(FOLDERS[-1], filter="data")
        if options.output:
            store(options.output)
        else:
            print(summary())


if __name__ == "__main__":
    main()
