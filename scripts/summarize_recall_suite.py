"""Tables of scripts/recall_suite.sh: share of questions answered right, from what `flasheva evaluate` wrote.

    python3 scripts/summarize_recall_suite.py runs/recall_suite
"""

import json
import sys
from pathlib import Path

VARIANTS = ("full", "sliding", "eva_sliding", "eva_block")
REACH = 64  # two layers, each with a window of 32 (configs/recall-tune.yaml): what came before is in no window


def share_beyond(group: dict) -> float:
    """Of the questions whose answer no window reaches, not even through another layer's."""
    far = [bucket for bucket in group["distances"] if bucket["from"] >= REACH]
    return sum(bucket["acc"] * bucket["questions"] for bucket in far) / sum(bucket["questions"] for bucket in far)


def print_table(title: str, columns: list[str], rows: dict[str, list[float]]) -> None:
    print(f"\n{title:<24}" + "".join(f"{column:>10}" for column in columns))
    for name, values in rows.items():
        print(f"{name:<24}" + "".join(f"{value:>10.3f}" for value in values))


def main() -> None:
    runs = Path(sys.argv[1])
    figures = {variant: json.loads((runs / f"{variant}.json").read_text()) for variant in VARIANTS}
    buckets = [f"{bucket['from']}-{bucket['to']}" for bucket in figures["full"]["distances"]]
    by_distance = {name: [bucket["acc"] for bucket in out["distances"]] for name, out in figures.items()}
    print_table("tokens since the answer", buckets, by_distance)
    keys = [group["group"].removeprefix("mqar ") for group in figures["full"]["groups"]]
    beyond = {name: [share_beyond(group) for group in out["groups"]] for name, out in figures.items()}
    print_table(f"from {REACH} on, by keys", keys, beyond)
    print(f"\nchance: {1 / 4:.3f}   window: {REACH // 2}, in each of two layers   with standard errors: {runs}/*.txt")


if __name__ == "__main__":
    main()
