"""Do the losses of a GPU's runs follow the CPU's? Two runs in float32, two that end in bfloat16.

    python3 scripts/compare_losses.py CPU_FP32 GPU_FP32 CPU_BF16 GPU_BF16    (run folders, of equal settings)

In float32 every step's loss must agree to 1e-4 (relative). In bfloat16 the GPU's may be twice as far from the CPU's
float32 run as the CPU's own bfloat16 is. Exits with 1 where one is farther.
"""

import json
import sys
from pathlib import Path

FP32_BOUND = 1e-4
TIMES_THE_ERROR_OF_BF16 = 2


def losses_of(run: str) -> list:
    entries = map(json.loads, (Path(run) / "metrics.jsonl").read_text().splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


def farthest(losses: list, reference: list) -> float:
    assert len(losses) == len(reference) > 0
    return max(abs(a - b) / abs(b) for a, b in zip(losses, reference))


def main() -> int:
    cpu_fp32, gpu_fp32, cpu_bf16, gpu_bf16 = map(losses_of, sys.argv[1:5])
    fp32, own, bf16 = farthest(gpu_fp32, cpu_fp32), farthest(cpu_bf16, cpu_fp32), farthest(gpu_bf16, cpu_fp32)
    print(f"{len(cpu_fp32)} steps; fp32: at most {fp32:.1e} from the CPU's losses, allowed {FP32_BOUND:.0e}")
    print(f"bf16: at most {bf16:.1e} from the CPU's fp32 losses, allowed {TIMES_THE_ERROR_OF_BF16} x {own:.1e}")
    return int(not (fp32 <= FP32_BOUND and bf16 <= TIMES_THE_ERROR_OF_BF16 * own))


if __name__ == "__main__":
    sys.exit(main())
