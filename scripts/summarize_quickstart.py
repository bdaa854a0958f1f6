"""The quickstart's table: validation loss and speed of every stage, from the runs' metrics.jsonl.

    python3 scripts/summarize_quickstart.py runs/quickstart     prints it and writes summary.json there
"""

import json
import sys
from pathlib import Path

VARIANTS = ("full", "block", "sliding")


def read_metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def stage(variant: str, name: str, entries: list[dict], phase: str, at_start: bool = False) -> dict:
    """The last validation of a phase, or the one before its first step; the mean speed of its logged steps."""
    own = [entry for entry in entries if entry["phase"] == phase]
    losses = [entry["validation_loss"] for entry in own if "validation_loss" in entry]
    speeds = [entry["tokens_per_second"] for entry in own if "tokens_per_second" in entry]
    return {
        "variant": variant,
        "stage": name,
        "validation_loss": losses[0] if at_start else losses[-1],
        "tokens_per_second": None if at_start else sum(speeds) / len(speeds),
    }


def main() -> None:
    runs = Path(sys.argv[1])
    stages = [stage("full", "pretrained", read_metrics(runs / "pretrain"), "pretrain")]
    for variant in VARIANTS:
        entries = read_metrics(runs / variant)
        if variant != "full":
            stages.append(stage(variant, "swapped", entries, "attention_warmup", at_start=True))
        stages += [stage(variant, phase, entries, phase) for phase in ("attention_warmup", "full_finetune")]

    summary = {"stages": stages, "export": str(runs / "export")}
    (runs / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(f"\n{'variant':<10}{'stage':<20}{'validation loss':>16}{'tokens/s':>12}")
    for row in stages:
        speed = "" if row["tokens_per_second"] is None else f"{row['tokens_per_second']:.0f}"
        print(f"{row['variant']:<10}{row['stage']:<20}{row['validation_loss']:>16.4f}{speed:>12}")
    print(f"\nexported model: {summary['export']}   this table: {runs / 'summary.json'}")


if __name__ == "__main__":
    main()
