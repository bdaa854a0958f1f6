"""Compares the speed of flasheva on one GPU with PyTorch: the same shapes, in alternation, in one run.

    python3 benchmarks/gpu_against_pytorch.py --binary build/gpu-package/flasheva
    python3 benchmarks/gpu_against_pytorch.py --pytorch-only        what there is to beat
    python3 benchmarks/gpu_against_pytorch.py --try-on-cpu          tiny shapes, without a GPU: does it all run?

Training steps in bfloat16 with full attention at the shapes of Pythia (configs/gpu-*.yaml): transformers' GPTNeoX,
compiled, AdamW fused, SDPA's flash or cuDNN kernels, whichever is the faster at that head dimension. Attention alone:
full against both kernels, FlashEVA against flex_attention over [tokens; chunks] and against the batched formula, both
compiled with their chunk summaries. Writes MACHINE-against-pytorch-DATE.md and .json to --output after every row.
"""

# ruff: noqa: E402
import time

START = time.monotonic()  # importing PyTorch takes seconds of --seconds

import argparse
import datetime
import gc
import shlex
import statistics
import sys
import threading
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch.nn.attention import sdpa_kernel

import pytorch_side
from against_pytorch import load_config, one_line
from common import CONFIGS, ROOT, check_first_losses, commit, machine, run_bench, start_of, write_report
from gpu_pytorch_side import BACKENDS, make_block_mask
from gpu_report import cells, gpu, markdown
from pytorch_side import modeling
from rows import AttentionRow, StepRow, quick

TINY = ("vocab_size=1000", "hidden_size=128", "num_hidden_layers=1", "num_attention_heads=2", "intermediate_size=256")
TINY = (*(f"model.architecture.{size}" for size in TINY), "data.sequence_length=512", "batch.sequences=2", "batch.micro=2")


def step_row(size: str) -> StepRow:
    overrides = ("model.attention.default=full",)
    return StepRow(f"step, {size.upper()}", f"gpu-{size}.yaml", overrides, quick=TINY, targets=(None, 1.3))


def attention_row(kind: str, tokens: int, target: float | None = None) -> AttentionRow:
    name = f"{'FlashEVA' if kind == 'eva' else 'full'} attention alone, T {tokens}"
    return AttentionRow(name, kind, tokens, batch=65536 // tokens, heads=16, targets=(None, target))


# By importance: the time may not be enough for all.
ROWS = (
    attention_row("full", 2048),
    attention_row("full", 8192),
    step_row("160m"),
    step_row("410m"),
    attention_row("eva", 2048),
    attention_row("eva", 8192),
    step_row("1.4b"),
    step_row("70m"),
)


def tiny(row):
    return replace(quick(row), batch=1) if isinstance(row, AttentionRow) else quick(row)


# --- model FLOPs, counted as `flasheva bench` does ---------------------------------------------------------


def visible_pairs(tokens: int, kind: str, eva: dict) -> int:
    """Exact tokens and visible chunks, summed over all queries."""
    first, chunks = modeling.first_token, modeling.visible_chunks
    return sum(n - first(n, kind, eva) + 1 + chunks(n, kind, eva) for n in range(tokens))


def step_flops(config: dict) -> float:
    """tokens x 6 x matrix parameters + layers x 3.5 x 4 D x pairs; all parameters are trained."""
    m, (B, T) = config["model"]["architecture"], pytorch_side.batch_shape(config)
    D, layers = m["hidden_size"], m["num_hidden_layers"]
    matrices = layers * (4 * D * D + 2 * D * m["intermediate_size"]) + m["vocab_size"] * D
    attention = config["model"]["attention"]
    pairs = visible_pairs(T, attention["default"], pytorch_side.configuration.EVA_DEFAULTS | attention)
    return 6.0 * B * T * matrices + B * layers * 3.5 * 4 * D * pairs


def attention_flops(row: AttentionRow) -> float:
    eva = pytorch_side.configuration.EVA_DEFAULTS | {"window": row.window, "chunk": row.chunk}
    return 3.5 * 4 * row.batch * row.heads * row.head_dim * visible_pairs(row.tokens, row.kind, eva)


# --- PyTorch's side ------------------------------------------------------------------------------------------


def variants_of(row, options, start: Path | None) -> dict:
    """{name: (kernels of SDPA, maker)}; of steps that begin with the model and tokens of the folder `start`."""
    if isinstance(row, StepRow):
        config = load_config(row)
        kernels = fastest_kernels(config, options)
        how = {"start": start, "device": options.device, "full_attention": "causal"}  # of gpu_pytorch_side
        execution = "compiled" if options.device == "cuda" else "unfused"
        make = partial(pytorch_side.Step, config, execution, formulation="", **how)
        return {f"{execution} {s}, {kernels}": (kernels, partial(make, storage=s)) for s in options.storages}
    make = partial(pytorch_side.Attention, row, "bf16", device=options.device)
    if row.kind == "full":
        return {name: (name, partial(make, "eager", "")) for name in BACKENDS}
    make_block_mask(row.tokens, row.window, row.chunk, options.device)
    return {name: ("flash", partial(make, "compiled", name)) for name in ("flex", "batched")}


def fastest_kernels(config: dict, options) -> str:
    """The SDPA backend that is the fastest at this step's attention."""
    m, (B, T) = config["model"]["architecture"], pytorch_side.batch_shape(config)
    heads = m["num_attention_heads"]
    row = AttentionRow("", "full", T, batch=B, heads=heads, head_dim=m["hidden_size"] // heads)
    times = {}
    for name, backend in BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                work = pytorch_side.Attention(row, "bf16", "eager", "", options.device)
                times[name] = statistics.median(seconds_of(work, 5))
        except RuntimeError as error:
            print(f"  {name}: {one_line(error)}", flush=True)
    return min(times, key=times.get)


# --- measurement ---------------------------------------------------------------------------------------------


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(work, repeats: int, batches: int = 3) -> list:
    """Of one run in each of the batches of `repeats` back to back: PyTorch's launches may run ahead of the GPU."""
    warm = time.perf_counter() + 0.3  # until the clocks have risen
    while time.perf_counter() < warm:
        work()
        synchronize()
    times = []
    for _ in range(batches):
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        synchronize()
        times.append((time.perf_counter() - start) / repeats)
    return times


class UsedMemory:
    """The most bytes of the GPU that other processes took while it was open."""

    def __enter__(self):
        self.peak, self.open = 0, torch.cuda.is_available()
        if self.open:
            torch.cuda.empty_cache()
            self.free = torch.cuda.mem_get_info()[0]
            self.thread = threading.Thread(target=self.watch)
            self.thread.start()
        return self

    def watch(self):
        while self.open:
            self.peak = max(self.peak, self.free - torch.cuda.mem_get_info()[0])
            time.sleep(0.02)

    def __exit__(self, *_):
        if self.open:
            self.open = False
            self.thread.join()


def machine_peaks(rows, options) -> dict:
    """PyTorch's copy (bytes read and written a second) and GEMM (FLOP/s of the best shape), on random values."""
    on_gpu, size = options.device == "cuda", 4096 if options.device == "cuda" else 256
    shapes = {(size, size, size), (2 * size, 2 * size, 2 * size)}
    for row in rows:
        if isinstance(row, StepRow):
            config = load_config(row)
            m, (B, T) = config["model"]["architecture"], pytorch_side.batch_shape(config)
            D, inner = m["hidden_size"], m["intermediate_size"]
            shapes |= {(B * T, 3 * D, D), (B * T, inner, D), (B * T, D, inner)}
    gemm = 0.0
    for N, O, I in sorted(shapes):
        x, weight = (torch.randn(n, I, device=options.device).bfloat16() for n in (N, O))
        gemm = max(gemm, 2.0 * N * O * I / min(seconds_of(lambda: F.linear(x, weight), 10 if on_gpu else 1, 8)))
    source = torch.randn((1 << 30) // 4 if on_gpu else 1 << 20, device=options.device)
    out = torch.empty_like(source)
    copy = 2 * 4 * source.numel() / min(seconds_of(lambda: out.copy_(source), 5, 5))
    return {"gemm_flops_per_second": gemm, "copy_bytes_per_second": copy}


def our_arguments(row, options) -> list:
    if isinstance(row, StepRow):
        config = str((CONFIGS / row.config).relative_to(ROOT))
        return ["step", config, *row.overrides, "--steps", str(options.repeats), "--device", options.device]
    flags = {"kind": row.kind, "heads": row.heads, "head-dim": row.head_dim, "tokens": row.tokens}
    flags |= {"batch": row.batch, "window": row.window, "chunk": row.chunk, "precision": "bf16"}
    flags |= {"repeats": 4 * options.repeats, "device": options.device}
    return ["attention", *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]


def run_ours(row, options) -> dict:
    """The figures of `flasheva bench`, with `seconds` of a step and `memory_bytes`."""
    with UsedMemory() as used:
        figures = run_bench(options.binary, our_arguments(row, options), min(120, seconds_left(options)))
    if isinstance(row, StepRow):
        seconds = figures["seconds_per_step"]
    else:
        seconds = 1e-3 * (figures["milliseconds_forward"] + figures["milliseconds_backward"])
    return figures | {"seconds": seconds, "memory_bytes": used.peak}


def seconds_left(options) -> float:
    return options.seconds - (time.monotonic() - START)


def seconds_needed(row) -> float:
    """For one variant: compiling takes the most, of a large model also writing and reading its weights."""
    if isinstance(row, StepRow):
        return 170 if load_config(row)["model"]["architecture"]["num_hidden_layers"] >= 24 else 70
    return 60 if row.kind == "eva" else 20


def start_of_row(row, options):
    """Of steps that are compared: what both sides begin with. Ours make it anew in every run, from the seed."""
    if not (options.binary and isinstance(row, StepRow)):
        return nullcontext()
    return start_of(options.binary, our_arguments(row, options), min(120, seconds_left(options)))


def run_pair(row, work, options) -> tuple:
    """The figures of our program, then PyTorch's seconds."""
    ours = {}
    if options.binary:
        if isinstance(work, pytorch_side.Step):
            work.drop_gradients()  # our program needs their memory
        ours = run_ours(row, options)
        if isinstance(work, pytorch_side.Step):
            check_first_losses(ours["first_loss"], work.first_loss, "bf16")
    repeats = options.repeats if isinstance(row, StepRow) else 4 * options.repeats
    return ours, statistics.median(seconds_of(work, repeats))


def run_variant(row, kernels: str, make, options) -> dict:
    """One variant of PyTorch, in alternation with our program; `stopped` says why there are fewer pairs."""
    result: dict = {"ours": [], "pytorch_seconds": []}
    with sdpa_kernel(BACKENDS[kernels]):
        work = make()
        for _ in range(3):  # the first compiles
            work()
        result["pytorch_first_loss"] = getattr(work, "first_loss", None)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        longest = 0.0
        for pair in range(options.pairs):
            start = time.monotonic()
            if seconds_left(options) < 1.2 * longest:
                result["stopped"] = f"no time left after pair {pair}"
                break
            try:
                ours, seconds = run_pair(row, work, options)
            except Exception as error:
                if pair == 0:
                    raise
                result["stopped"] = f"pair {pair + 1}: {one_line(error)}"
                break
            result["ours"] += [ours] if ours else []
            result["pytorch_seconds"].append(seconds)
            longest = max(longest, time.monotonic() - start)
    if torch.cuda.is_available():
        result["pytorch_memory_bytes"] = torch.cuda.max_memory_allocated()
    return result


def forget() -> None:
    """What one variant leaves behind."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measure(row, options) -> dict:
    is_step = isinstance(row, StepRow)
    head = {"row": row.name, "target": row.targets[1], "failed": {}, "variants": {}}
    head["flops"] = step_flops(load_config(row)) if is_step else attention_flops(row)
    if is_step:
        B, T = pytorch_side.batch_shape(load_config(row))
        head["tokens"] = B * T
    if seconds_left(options) < seconds_needed(row):
        head["failed"]["all"] = "no time left"
        return head
    try:
        with start_of_row(row, options) as start:
            measure_variants(head, row, options, start)
    except Exception as error:
        head["failed"]["all"] = one_line(error)
    return head | fastest(head)


def measure_variants(head: dict, row, options, start: Path | None) -> None:
    for name, (kernels, make) in variants_of(row, options, start).items():
        if seconds_left(options) < seconds_needed(row):
            head["failed"][name] = "no time left"
            continue
        try:
            head["variants"][name] = result = run_variant(row, kernels, make, options)
            if "stopped" in result:
                head["failed"][name] = result["stopped"]
        except Exception as error:  # a variant that does not run must not hide the others
            head["failed"][name] = one_line(error)
        forget()


def fastest(result: dict) -> dict:
    """The figures of the fastest variant."""
    medians = {name: statistics.median(v["pytorch_seconds"]) for name, v in result["variants"].items()}
    if not medians:
        return {}
    name = min(medians, key=medians.get)
    variant = result["variants"][name]
    figures = {"fastest": name, "pytorch_seconds": medians[name]}
    figures["pytorch_memory_bytes"] = variant.get("pytorch_memory_bytes")
    figures["pytorch_first_loss"] = variant["pytorch_first_loss"]
    if variant["ours"]:
        ours = [run["seconds"] for run in variant["ours"]]
        figures["our_seconds"] = statistics.median(ours)
        figures["ratio"] = statistics.median(t / o for t, o in zip(variant["pytorch_seconds"], ours))
        figures["our_memory_bytes"] = max(run["memory_bytes"] for run in variant["ours"])
        figures["our_gemm_peak"] = max(run["gemm_peak_flops_per_second"] for run in variant["ours"])
        figures["our_first_loss"] = variant["ours"][0].get("first_loss")
    return figures


# --- all rows ------------------------------------------------------------------------------------------------


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "build/gpu-package/flasheva")
    parser.add_argument("--pytorch-only", action="store_true", help="without our program")
    parser.add_argument("--rows", nargs="+", default=[], help="only rows whose name contains one of these")
    storages = ("weights", "autocast")  # bfloat16 weights with float32 masters, or float32 weights
    parser.add_argument("--storages", nargs="+", choices=storages, default=storages[:1])
    parser.add_argument("--pairs", type=int, default=3, help="alternations of a row; the median counts")
    parser.add_argument("--repeats", type=int, default=6, help="steps timed on each side of a pair")
    parser.add_argument("--seconds", type=float, default=3600, help="begins no row that may take longer")
    parser.add_argument("--try-on-cpu", action="store_true", help="tiny shapes, one pair")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results")
    options = parser.parse_args()
    options.device = "cpu" if options.try_on_cpu else "cuda"
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU; --try-on-cpu runs everything on tiny shapes")
    options.binary = None if options.pytorch_only else options.binary.resolve()
    if options.binary and not options.binary.is_file():
        parser.error(f"{options.binary} is missing: scripts/package_for_gpu.sh, or --pytorch-only")
    if options.try_on_cpu:
        options.pairs, options.repeats = 1, 1
        BACKENDS.pop("cudnn")
    return options


def main() -> int:
    options = parse_options()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rows = [row for row in ROWS if not options.rows or any(part in row.name for part in options.rows)]
    if options.try_on_cpu:
        rows = [tiny(row) for row in rows if row.name.endswith((" 2048", " 160M"))]
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": machine() | gpu(),
        "commit": commit(),
        "command": shlex.join(["python3", *sys.argv]),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "pairs": options.pairs,
        "peaks": machine_peaks(rows, options),
        "rows": [],
    }
    forget()
    name = f"against-pytorch-{report['date']}{'-tiny' if options.try_on_cpu else ''}"
    for row in rows:
        report["rows"].append(measure(row, options))
        print(f"{row.name}: {' | '.join(cells(report['rows'][-1], report['peaks']['gemm_flops_per_second']))}", flush=True)
        path = write_report(report, markdown(report), name, options.output)
    print(f"{path}.md")
    return int(any(not row["variants"] for row in report["rows"]))


if __name__ == "__main__":
    sys.exit(main())
