"""The report of gpu_against_pytorch.py: the GPU and its state, and the table of all rows in Markdown."""

import subprocess

import torch

from common import LOSS_TOLERANCE, machine_line


def gpu() -> dict:
    if not torch.cuda.is_available():
        return {}
    properties = torch.cuda.get_device_properties(0)
    wanted = "driver_version,clocks.sm,clocks.mem,power.limit"
    query = ["nvidia-smi", f"--query-gpu={wanted}", "--format=csv,noheader"]
    state = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    figures = {"gpu": properties.name, "multiprocessors": properties.multi_processor_count}
    return figures | {"gpu_memory_gib": round(properties.total_memory / 2**30), wanted: state}


def cells(row: dict, peak: float) -> list:
    """ours, PyTorch, its fastest variant, ratio, target."""
    sides = []
    for side in ("our", "pytorch"):
        seconds = row.get(f"{side}_seconds")
        if not seconds:
            sides.append("")
            continue
        speed = row["flops"] / seconds
        tokens = f"{row['tokens'] / seconds:.0f} tokens/s, " if "tokens" in row else ""
        memory = row.get(f"{side}_memory_bytes")
        memory = f", {memory / 2**30:.1f} GiB" if memory else ""
        sides.append(f"{1e3 * seconds:.2f} ms, {tokens}{speed / 1e12:.1f} TFLOP/s ({speed / peak:.1%}){memory}")
    ratio = f"**{row['ratio']:.2f}**" if "ratio" in row else ""
    return [*sides, row.get("fastest", "none ran"), ratio, str(row["target"] or "")]


def markdown(report: dict) -> str:
    peaks = [report["peaks"]["gemm_flops_per_second"], *(row.get("our_gemm_peak", 0.0) for row in report["rows"])]
    lines = [f"# flasheva against PyTorch, {report['machine'].get('gpu', 'no GPU')}, {report['date']}", ""]
    lines += [f"- Machine: {', '.join(f'{key} {value}' for key, value in gpu().items())}; {machine_line(report['machine'])}"]
    lines += [
        f"- Commit: {report['commit']}",
        f"- PyTorch {report['torch']}, transformers {report['transformers']}",
        f"- Command: `{report['command']}`",
        f"- GEMM peak: {peaks[0] / 1e12:.0f} TFLOP/s by PyTorch, {max(peaks[1:], default=0) / 1e12:.0f} by flasheva; "
        f"copy {report['peaks']['copy_bytes_per_second'] / 1e9:.0f} GB/s (PyTorch)",
        "",
        f"bf16. Ratio: PyTorch's time over ours, the median of {report['pairs']} pairs at most. In brackets: model FLOPs, as "
        "`flasheva bench` counts them, of the higher GEMM peak. Memory: PyTorch's allocations; all that our process takes.",
        "",
        "| row | ours | PyTorch | its fastest variant | ratio | target |",
        "| --- | --- | --- | --- | ---: | ---: |",
    ]
    lines += [f"| {row['row']} | {' | '.join(cells(row, max(peaks)))} |" for row in report["rows"]]
    losses = [row for row in report["rows"] if row.get("our_first_loss") is not None]
    if losses:
        lines += ["", "The first step's loss from the same weights and tokens, in nats, ours and PyTorch's (farther than "]
        lines[-1] += f"{LOSS_TOLERANCE['bf16']:g} apart, the row fails):"
        lines += ["", *(f"- {r['row']}: {r['our_first_loss']:.6f} and {r['pytorch_first_loss']:.6f}" for r in losses)]
    failures = [(row["row"], *failure) for row in report["rows"] for failure in row["failed"].items()]
    if failures:
        lines += ["", "What was not measured, or not to the end:", ""]
        lines += [f"- {row}, {variant}: {error}" for row, variant, error in failures]
    return "\n".join(lines) + "\n"
