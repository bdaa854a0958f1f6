"""Do the losses of a GPU's runs follow the CPU's? Two runs in float32, three that end in bfloat16.

    python3 scripts/compare_losses.py CPU_FP32 GPU_FP32 CPU_BF16 OTHER_CPU_BF16 GPU_BF16
                                                             (run folders, of equal settings)

In float32 every step's loss must agree to 1e-4 (relative). The two bfloat16 runs of the CPU round in different places
(DNNL_MAX_CPU_ISA); the GPU's, a third such way, may be twice as far from the nearer of them as they are from each
other. Exits with 1 where one is farther, with 77 where the CPU's two runs are the same.
"""

import json
import sys
from pathlib import Path

FP32_BOUND = 1e-4
TIMES_THE_SPREAD = 2
SKIPPED = 77


def losses_of(run: str) -> list:
    entries = map(json.loads, (Path(run) / "metrics.jsonl").read_text().splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


def farthest(losses: list, reference: list) -> float:
    assert len(losses) == len(reference) > 0
    return max(abs(a - b) / abs(b) for a, b in zip(losses, reference))


def main() -> int:
    cpu_fp32, gpu_fp32, cpu_bf16, other_bf16, gpu_bf16 = map(losses_of, sys.argv[1:6])
    fp32, spread = farthest(gpu_fp32, cpu_fp32), farthest(other_bf16, cpu_bf16)
    bf16 = min(farthest(gpu_bf16, cpu_bf16), farthest(gpu_bf16, other_bf16))
    print(f"{len(cpu_fp32)} steps; fp32: at most {fp32:.1e} from the CPU's losses, allowed {FP32_BOUND:.0e}")
    print(f"bf16: at most {bf16:.1e} from the nearer of the CPU's runs, allowed {TIMES_THE_SPREAD} x {spread:.1e}")
    if fp32 > FP32_BOUND:
        return 1
    if spread == 0:
        print("bf16: this CPU has one way of rounding alone, and nothing was compared")
        return SKIPPED
    return int(bf16 > TIMES_THE_SPREAD * spread)


if __name__ == "__main__":
    sys.exit(main())
