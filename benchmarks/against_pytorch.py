"""Compares the speed of flasheva on the CPU with PyTorch: the same shapes, in alternation, in one run.

    .venv-torch/bin/python benchmarks/against_pytorch.py            (--quick: a smoke run at small sizes)

Needs build/release/flasheva and the virtual environment of scripts/make_fixtures.sh (torch 2.11.0 and
transformers 5.17.0). Writes benchmarks/results/MACHINE-DATE.md and .json (MACHINE-DATE-PRECISION if only one is
asked for). A row or PyTorch variant that fails is named there with its error; a failed row makes the exit status 1.
benchmarks/README.md says what is timed.
"""

import argparse
import datetime
import gc
import re
import shlex
import statistics
import sys
from functools import partial
from pathlib import Path

import torch
import transformers
import yaml

import pytorch_side
from common import CONFIGS, LOSS_TOLERANCE, ROOT, THREADS, check_first_losses, git, machine, machine_line
from common import run_bench, start_of, write_report
from rows import ROWS, AttentionRow, OwnStepRow, quick

KIND_OF = {"linear_": "products", "attention_": "attention", "chunk_summary_": "chunk summaries"}
GIVE_UP_AT = 1.3  # a PyTorch variant this much slower than the fastest in the first pair is not timed again


# --- our side --------------------------------------------------------------------------------------------


def step_arguments(row, precision: str, steps: int, *more: str) -> list:
    config = str((CONFIGS / row.config).relative_to(ROOT))
    options = [f"phases.0.precision={precision}", *more, "--steps", str(steps), "--operations"]
    return ["step", config, *row.overrides, *options]


def attention_arguments(row: AttentionRow, precision: str, repeats: int) -> list:
    flags = {"kind": row.kind, "heads": row.heads, "head-dim": row.head_dim, "tokens": row.tokens}
    flags |= {"batch": row.batch, "window": row.window, "chunk": row.chunk, "window-kind": "block"}
    flags |= {"precision": precision, "repeats": repeats}
    return ["attention", *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]


def load_config(row) -> dict:
    """The row's YAML with its overrides, as PyTorch's side needs it."""
    config = yaml.safe_load((CONFIGS / row.config).read_text())
    for override in row.overrides:
        path, value = override.split("=", 1)
        *parents, last = path.split(".")
        target = config
        for key in parents:
            target = target[key]
        target[last] = yaml.safe_load(value)
    return config


# --- one row ---------------------------------------------------------------------------------------------


def warmed_up(variants: dict) -> tuple:
    """The variants that run, after two runs of each (the first compiles), and {name: error} of the others."""
    running, failed = {}, {}
    for name, make in variants.items():
        try:
            work = make()
            work()
            work()
            running[name] = work
        except (
            Exception
        ) as error:  # PyTorch's own: a compiler that fails on one variant must not hide the rest
            failed[name] = one_line(error)
    if not running:
        raise RuntimeError(f"no PyTorch variant runs: {failed}")
    return running, failed


def compare(ours, variants: dict, pairs: int, repeats: int) -> dict:
    """Seconds of both sides in alternation: `ours` gives (seconds, figures), `variants` {name: its maker}."""
    running, failed = warmed_up(variants)
    first_losses = {name: getattr(work, "first_loss", None) for name, work in running.items()}
    samples = {name: [] for name in running}
    our_seconds, figures = [], []
    for pair in range(pairs):
        taken, figure = ours()
        our_seconds.append(taken)
        figures.append(figure)
        for name, work in running.items():
            samples[name].append(pytorch_side.seconds(work, repeats))
        if pair == 0:
            best = min(times[0] for times in samples.values())
            running = {name: work for name, work in running.items() if samples[name][0] <= GIVE_UP_AT * best}
    fastest = min(running, key=lambda name: statistics.median(samples[name]))
    return {
        "ratio": statistics.median(t / o for t, o in zip(samples[fastest], our_seconds)),
        "our_seconds": our_seconds,
        "fastest": fastest,
        "pytorch_seconds": samples,
        "pytorch_failed": failed,
        "pytorch_first_losses": first_losses,
        "figures": figures,
    }


def compare_step(row, precision: str, options) -> dict:
    config = load_config(row)
    B, T = pytorch_side.batch_shape(config)

    arguments = step_arguments(row, precision, options.repeats)

    def ours():
        figures = run_bench(options.binary, arguments)
        return B * T / figures["tokens_per_second"], figures

    variants = pytorch_side.step_variants(config, precision)
    with start_of(options.binary, arguments) as start:
        makers = {name: partial(pytorch_side.Step, config, *how, start) for name, how in variants.items()}
        result = compare(ours, makers, options.pairs, options.repeats)
    for loss in result["pytorch_first_losses"].values():
        check_first_losses(result["figures"][0]["first_loss"], loss, precision)
    model = config["model"]["architecture"]
    D, I, rows = model["hidden_size"], model["intermediate_size"], B * T
    shapes = [(rows, 3 * D, D), (rows, I, D), (rows, D, I), (min(rows, 512), model["vocab_size"], D)]
    figures = result["figures"]
    flops_per_step = B * T * figures[0]["model_flops_per_second"] / figures[0]["tokens_per_second"]
    return result | shares(result, flops_per_step, precision, shapes, options)


def compare_attention(row, precision: str, options) -> dict:
    def ours():
        figures = run_bench(options.binary, attention_arguments(row, precision, options.repeats))
        return 1e-3 * (figures["milliseconds_forward"] + figures["milliseconds_backward"]), figures

    variants = pytorch_side.attention_variants(row)
    makers = {name: partial(pytorch_side.Attention, row, precision, *how) for name, how in variants.items()}
    result = compare(ours, makers, options.pairs, options.repeats)
    flops = result["figures"][0]["flops_per_second"] * result["our_seconds"][0]
    return result | shares(result, flops, precision, [], options)


def shares(result: dict, flops: float, precision: str, shapes: list, options) -> dict:
    """FLOP/s of both sides and of both GEMMs."""
    cube = 512 if options.quick else 4096
    fastest = statistics.median(result["pytorch_seconds"][result["fastest"]])
    return {
        "our_flops_per_second": flops / statistics.median(result["our_seconds"]),
        "pytorch_flops_per_second": flops / fastest,
        "our_gemm_peak": max(f.get("gemm_peak_flops_per_second", 0.0) for f in result["figures"]),
        "pytorch_gemm_peak": pytorch_side.gemm_peak([*shapes, (cube, cube, cube)], precision),
    }


def compare_own_step(row, precision: str, options) -> dict:
    """FlashEVA (`our_seconds`) against our own full attention (in PyTorch's place)."""
    samples = {"full": [], "eva": []}
    figures = []
    for _ in range(options.pairs):
        for kind in samples:
            arguments = step_arguments(row, precision, options.repeats, f"model.attention.default={kind}")
            figures.append(run_bench(options.binary, arguments))
            samples[kind].append(1 / figures[-1]["tokens_per_second"])
    flops = [f["model_flops_per_second"] for f in figures]
    return {
        "ratio": statistics.median(full / eva for full, eva in zip(samples["full"], samples["eva"])),
        "fastest": "our full attention",
        "seconds_per_token": samples,
        "figures": figures,
        "our_flops_per_second": statistics.median(flops[1::2]),
        "pytorch_flops_per_second": statistics.median(flops[0::2]),
        "our_gemm_peak": max(f["gemm_peak_flops_per_second"] for f in figures),
        "pytorch_gemm_peak": max(f["gemm_peak_flops_per_second"] for f in figures),
    }


def measure(row, precision: str, options) -> dict:
    by_type = {AttentionRow: compare_attention, OwnStepRow: compare_own_step}
    target = row.targets[precision == "bf16"]
    head = {"row": row.name, "precision": precision, "target": target}
    try:
        result = by_type.get(type(row), compare_step)(row, precision, options)
        for figures in result["figures"][:-1]:  # one profile is enough
            figures.pop("operations", None)
        return head | result
    except Exception as error:  # the table names every row that could not be measured
        return head | {"error": one_line(error)}
    finally:
        torch._dynamo.reset()
        gc.collect()


def one_line(error: Exception) -> str:
    """Its type and first line; of a compiler's output, also the first line that says what is wrong."""
    lines = str(error).splitlines() or [""]
    cause = next((line for line in lines if " error: " in line), "")
    text = " ".join(filter(None, (f"{type(error).__name__}:", lines[0], cause)))
    return re.sub(r"/\S*/", "", text)  # where the compiler's temporary files lay helps nobody


# --- the report ------------------------------------------------------------------------------------------


def markdown(report: dict) -> str:
    lines = [f"# flasheva against PyTorch, {report['machine']['cpu']}, {report['date']}", ""]
    lines += [
        f"- Machine: {machine_line(report['machine'])}",
        f"- Commit: {report['commit']}",
        f"- PyTorch {report['torch']}, transformers {report['transformers']}",
        f"- Command: `{report['command']}`",
        "",
        "Ratio: time of the fastest PyTorch variant (last rows: of our own full attention) over ours, the "
        f"median of {report['pairs']} pairs. GFLOP/s, and in brackets the share of the side's own GEMM peak.",
        "",
        "| row | precision | ours | PyTorch | its fastest variant | ratio | target |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [table_line(row) for row in report["rows"]]
    profiles = [
        f"- {r['row']}, {r['precision']}: {time_by_kind(r['figures'][-1])}"
        for r in report["rows"]
        if "operations" in r.get("figures", [{}])[-1]
    ]
    if profiles:
        lines += ["", "Where the time of our step goes (operation by operation in the .json):", "", *profiles]
    losses = [r for r in report["rows"] if "first_loss" in r.get("figures", [{}])[0] and "pytorch_first_losses" in r]
    if losses:
        allowed = " and ".join(f"{bound:g} in {precision}" for precision, bound in LOSS_TOLERANCE.items())
        lines += ["", "The first step's loss from the same weights and tokens, in nats, ours and that of the fastest "]
        lines[-1] += f"PyTorch variant (a row whose variants are not all within {allowed} of ours fails):"
        lines += ["", *(f"- {r['row']}, {r['precision']}: {first_losses(r)}" for r in losses)]
    failures = [
        (r["row"], r["precision"], *f) for r in report["rows"] for f in r.get("pytorch_failed", {}).items()
    ]
    if failures:
        lines += ["", "PyTorch variants that do not run on this machine:", ""]
        lines += [f"- {row}, {precision}, {variant}: {error}" for row, precision, variant, error in failures]
    return "\n".join(lines) + "\n"


def time_by_kind(figures: dict) -> str:
    """Where the time of our step goes: the share of each kind of operation, and the speed of the products."""
    seconds, product_flops = dict.fromkeys(("products", "attention", "chunk summaries", "other passes"), 0.0), 0.0
    for row in figures["operations"]:
        kind = next((k for k in KIND_OF if row["operation"].startswith(k)), "")
        seconds[KIND_OF.get(kind, "other passes")] += row["seconds"]
        product_flops += row["flops_per_second"] * row["seconds"]
    step = figures["seconds_per_step"]
    speed, peak = product_flops / seconds["products"], figures["gemm_peak_flops_per_second"]
    shares = ", ".join(f"{kind} {taken / step:.1%}" for kind, taken in seconds.items() if taken)
    return f"{shares}; products at {speed / 1e9:.0f} GFLOP/s, {speed / peak:.0%} of the peak"


def first_losses(row: dict) -> str:
    return f"{row['figures'][0]['first_loss']:.6f} and {row['pytorch_first_losses'][row['fastest']]:.6f}"


def table_line(row: dict) -> str:
    head = f"| {row['row']} | {row['precision']} |"
    if "error" in row:
        return f"{head} failed: {row['error'].replace('|', '/')} | | | | {row['target']} |"
    sides = []
    for side in ("our", "pytorch"):
        speed, peak = row[f"{side}_flops_per_second"], row[f"{side}_gemm_peak"]
        sides.append(f"{speed / 1e9:.0f} ({speed / peak:.0%} of {peak / 1e9:.0f})")
    return f"{head} {' | '.join(sides)} | {row['fastest']} | **{row['ratio']:.2f}** | {row['target']} |"


def report_name(report: dict) -> str:
    part = f"-{report['precisions'][0]}" if len(report["precisions"]) == 1 else ""
    return f"{report['date']}{part}{'-quick' if report['quick'] else ''}"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--binary", type=Path, default=ROOT / "build/release/flasheva")
    parser.add_argument("--rows", default="", help="only rows whose name matches this regular expression")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=("fp32", "bf16"))
    parser.add_argument("--pairs", type=int, default=5, help="alternations of a row; the median counts")
    parser.add_argument("--repeats", type=int, default=3, help="steps timed on each side of a pair")
    parser.add_argument("--quick", action="store_true", help="small sizes, one pair: does it all run?")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results")
    options = parser.parse_args()
    if not options.binary.is_file():
        parser.error(f"{options.binary} is missing: cmake --preset release && cmake --build --preset release")
    if options.quick:
        options.pairs, options.repeats = 1, 1
    return options


def main() -> int:
    options = parse_options()
    torch.set_num_threads(THREADS)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "commit": git("describe", "--always", "--dirty"),
        "command": shlex.join(["python", *sys.argv]),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "pairs": options.pairs,
        "quick": options.quick,
        "precisions": options.precision,
        "rows": [],
    }
    for row in (quick(row) if options.quick else row for row in ROWS if re.search(options.rows, row.name)):
        for precision in options.precision:
            report["rows"].append(measure(row, precision, options))
            print(table_line(report["rows"][-1]), flush=True)
            # after every row: an interrupted run keeps what it has
            path = write_report(report, markdown(report), report_name(report), options.output)
    print(f"{path}.md")
    return int(any("error" in row for row in report["rows"]))


if __name__ == "__main__":
    sys.exit(main())
