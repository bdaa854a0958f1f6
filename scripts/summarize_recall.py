"""The recall table: share of queries answered right, from the runs' metrics.jsonl.

    python3 scripts/summarize_recall.py runs/recall     prints it and writes summary.json there
"""

import json
import sys
from pathlib import Path

VARIANTS = ("sliding", "eva_sliding", "eva_block")


def accuracies(run: Path) -> list[float]:
    """Every validation's accuracy, in order."""
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [entry["validation_accuracy"] for entry in entries if "validation_accuracy" in entry]


def main() -> None:
    runs = Path(sys.argv[1])
    accuracy: dict = {"full": accuracies(runs / "full")[-1]}
    for variant in VARIANTS:
        values = accuracies(runs / variant)
        accuracy[variant] = {"swapped": values[0], "tuned": values[-1]}
    (runs / "summary.json").write_text(json.dumps({"accuracy": accuracy}, indent=1) + "\n")

    print(f"\n{'attention':<14}{'swapped':>10}{'tuned':>10}")
    print(f"{'full':<14}{'':>10}{accuracy['full']:>10.3f}")
    for variant in VARIANTS:
        print(f"{variant:<14}{accuracy[variant]['swapped']:>10.3f}{accuracy[variant]['tuned']:>10.3f}")
    print(f"\nchance: {1 / 16:.3f}   this table: {runs / 'summary.json'}")


if __name__ == "__main__":
    main()
