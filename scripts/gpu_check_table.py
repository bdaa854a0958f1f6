"""The one table that ends the summary of scripts/gpu_check.sh: a row for every thing measured, from the JSON files of
`flasheva bench` and of benchmarks/gpu_against_pytorch.py, with the targets of the design beside.

The limit of a kernel is the longer of its bytes at the measured copy peak and its FLOPs at the measured GEMM peak, of
the same run. Bytes are those of the tensors that the operation is given, each counted once; FLOPs are model FLOPs.
"""

HEAD = "measured | time | speed | share of peak | time / limit | ratio | target"
OPERATIONS_OF_A_STEP = 5  # the heaviest of each size; all are in the profiles
OPERATIONS_OF_DECODING = 3

# The design's floors of forward and backward, H 16, d 64, one sequence on an H200, by tokens; and what to reach.
FLASHEVA_TARGETS = {2048: "floor 12 us", 8192: "<= 114 us", 32768: "floor 681 us"}
STEP_TARGETS = {"160m": ">= 50 %", "410m": ">= 50 %", "1.4b": ">= 55 %"}
DECODE_SHARE, LESS_MEMORY = ">= 80 %", ">= 5"
RATIOS = (  # row, FlashEVA's figures, full attention's, target
    ("FlashEVA over full: attention, T 8192, without the passes over qkv", "attention-eva-8192", "attention-full-8192", ">= 8"),
    ("FlashEVA over full: decode, block window", "decode-160m-eva-block", "decode-160m-full", ">= 6.7"),
    ("FlashEVA over full: decode, sliding window", "decode-160m-eva-sliding", "decode-160m-full", ">= 6.7"),
)


def row(measured: str, time="", speed="", share="", over_limit="", ratio="", target="") -> list:
    return [measured, time, speed, share, over_limit, ratio, target]


def duration(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.1f} us"


def rates(bytes_moved: float, flops: float, seconds: float) -> str:
    both = ((bytes_moved, 1e9, "GB/s"), (flops, 1e12, "TFLOP/s"))
    return ", ".join(f"{amount / seconds / unit:.4g} {name}" for amount, unit, name in both if amount)


class Limit:
    """Sums the limits of kernels that run one after the other."""

    def __init__(self, peaks: dict):
        self.peaks, self.seconds = peaks, dict.fromkeys(peaks, 0.0)

    def add(self, bytes_moved: float, flops: float) -> None:
        times = {"copy": bytes_moved / self.peaks["copy"], "GEMM": flops / self.peaks["GEMM"]}
        bound = max(times, key=times.get)
        self.seconds[bound] += times[bound]

    def columns(self, seconds: float) -> tuple:
        """share of peak, time / limit."""
        limit, bound = sum(self.seconds.values()), max(self.seconds, key=self.seconds.get)
        return (f"{limit / seconds:.1%} {bound}", f"{seconds / limit:.2f}") if limit else ("", "")


def peaks_of(f: dict) -> dict:
    copy = f.get("copy_peak_bytes_per_second") or f["memory_peak_bytes_per_second"]
    return {"copy": copy, "GEMM": f["gemm_peak_flops_per_second"]}


def operations(name: str, f: dict, heaviest: int) -> list:
    """An operation's calls of all shapes together; the time is that of one call."""
    totals: dict = {}
    for operation in f["operations"]:
        total = totals.setdefault(operation["operation"].split()[0], [0.0, 0.0, 0.0, 0.0, Limit(peaks_of(f))])
        for i, amount in enumerate(("seconds", "calls", "bytes", "flops")):
            total[i] += operation[amount]
        total[4].add(operation["bytes"], operation["flops"])
    rows = []
    for operation, (seconds, calls, *both, limit) in sorted(totals.items(), key=lambda item: -item[1][0])[:heaviest]:
        if seconds > 0:
            columns = limit.columns(seconds)
            rows.append(row(f"{name}: {operation} x {calls:g}", duration(seconds / calls), rates(*both, seconds), *columns))
    return rows


def attention(name: str, f: dict) -> list:
    """Forward and backward; the time is that of one sequence. Its limit: no tensor moved twice, copies under products.
    FlashEVA once with its passes over qkv, which full attention is timed without, and once without them."""
    kernels = [o for o in f["operations"] if o["operation"].startswith("attention_")]
    seconds = 1e-3 * (f["milliseconds_forward"] + f["milliseconds_backward"])
    timed = [("forward + backward", seconds, f["operations"])]
    if f["kind"] == "eva":
        timed[0] = ("forward + backward and the passes over qkv", seconds, f["operations"])
        timed.append(("forward + backward", seconds_of(kernels), kernels))
    rows, target = [], FLASHEVA_TARGETS.get(f["tokens"], "") if f["kind"] == "eva" else ""
    for label, taken, parts in timed:
        both = [sum(o[amount] for o in parts) for amount in ("bytes", "flops")]
        limit = Limit(peaks_of(f))
        limit.add(*both)
        cells = duration(taken / f["batch"]), rates(*both, taken), *limit.columns(taken)
        rows.append(row(f"attention {name}: {label}, a sequence", *cells, "", target))
    if f["kind"] == "eva" and f["tokens"] == 8192 and f["batch"] > 1:
        rows += operations(f"attention {name}", f, 4)
    return rows


def seconds_of(parts: list) -> float:
    return sum(o["seconds"] for o in parts)


def step(name: str, f: dict) -> list:
    speed = f"{f['tokens_per_second']:.0f} tokens/s, {f['model_flops_per_second'] / 1e12:.4g} TFLOP/s"
    share, target = f["share_of_peak"], STEP_TARGETS.get(name.split("-")[0], "")
    return [row(f"step {name}", duration(f["seconds_per_step"]), speed, f"{share:.1%} GEMM", f"{1 / share:.2f}", "", target)]


def decode(name: str, f: dict) -> list:
    share, target = f["share_of_limit"], DECODE_SHARE if "eva" in name else ""
    speed = f"{f['tokens_per_second']:.0f} tokens/s, cache {f['cache_bytes'] / 2**20:.0f} MiB"
    if "gpu_memory_bytes" in f:
        speed += f", GPU {f['gpu_memory_bytes'] / 2**20:.0f} MiB"
    cells = duration(f["seconds_per_step"]), speed, f"{share:.1%} bytes", f"{1 / share:.2f}"
    return [row(f"decode {name}", *cells, "", target)]


def times_as_fast(eva: dict, full: dict) -> float:
    if "tokens_per_second" in eva:
        return eva["tokens_per_second"] / full["tokens_per_second"]
    seconds = [seconds_of([o for o in f["operations"] if o["operation"].startswith("attention_")]) for f in (eva, full)]
    return seconds[1] / seconds[0]


def ratio(figures: dict, label: str, eva: str, full: str, target: str) -> list:
    """FlashEVA against our own full attention."""
    if eva not in figures or full not in figures:
        return []
    rows = [row(label, ratio=f"{times_as_fast(figures[eva], figures[full]):.2f}", target=target)]
    if "gpu_memory_bytes" in figures[full]:
        less = figures[full]["gpu_memory_bytes"] / figures[eva]["gpu_memory_bytes"]
        rows.append(row(f"{label}, times less GPU memory", ratio=f"{less:.2f}", target=LESS_MEMORY))
    return rows


def against_pytorch(report: dict) -> list:
    """Ratio: PyTorch's time over ours. The higher GEMM peak of both sides counts."""
    rows = []
    for r in report["rows"]:
        label, target = f"against PyTorch: {r['row']}", f">= {r['target']}" if r["target"] else ""
        if "our_seconds" not in r:
            why = "; ".join(r["failed"].values()) or "without our program"
            rows.append(row(label, speed=f"not measured: {why}"[:160].replace("|", "/"), target=target))
            continue
        peak = max(report["peaks"]["gemm_flops_per_second"], r["our_gemm_peak"])
        speed = r["flops"] / r["our_seconds"]
        words = f"{speed / 1e12:.4g} TFLOP/s; PyTorch {duration(r['pytorch_seconds'])}"
        if r.get("our_first_loss") is not None:
            words += f"; first loss {r['our_first_loss']:.5f}, PyTorch {r['pytorch_first_loss']:.5f}"
        share = f"{speed / peak:.1%} GEMM"
        rows.append(row(label, duration(r["our_seconds"]), words, share, f"{peak / speed:.2f}", f"{r['ratio']:.2f}", target))
    return rows


def rows_of_part(part: str, name: str, f: dict) -> list:
    if "operations" in f and part != "attention":
        if name.endswith("-full-operations"):
            return []  # the same kernels but for attention's
        heaviest = OPERATIONS_OF_DECODING if part == "decode" else OPERATIONS_OF_A_STEP
        return operations(f"{part} {name.removesuffix('-operations')}", f, heaviest)
    return {"steps": step, "attention": attention, "decode": decode}[part](name, f)


def rows(figures: dict) -> list:
    """`figures`: {PART-NAME of a file: its figures}, and the comparison's under a name with "against-pytorch"."""
    by_place: dict = {place: [] for place in ("operations", "attention", "steps", "decode", "ratios", "pytorch")}

    def add(place: str, name: str, make) -> None:
        try:
            by_place[place] += make()
        except (KeyError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:  # others must not suffer
            by_place[place].append(row(name, speed=f"unreadable: {type(error).__name__}: {error}"))

    for file, f in figures.items():
        part, _, name = file.partition("-")
        if "against-pytorch" in file:
            add("pytorch", file, lambda f=f: against_pytorch(f))
        elif part in ("steps", "attention", "decode"):
            place = "operations" if part != "attention" and name.endswith("-operations") else part
            add(place, file, lambda part=part, name=name, f=f: rows_of_part(part, name, f))
    for label, *of in RATIOS:
        add("ratios", label, lambda label=label, of=of: ratio(figures, label, *of))
    return [line for lines in by_place.values() for line in lines]
