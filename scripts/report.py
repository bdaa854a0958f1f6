#!/usr/bin/env python3
"""A training run as one HTML file: curves, stages, what the swap did to each layer, a sample of text.

    .venv/bin/python scripts/report.py RUN                 writes RUN/report.html
    .venv/bin/python scripts/report.py RUN RUN --output F  several runs side by side

RUN is the output folder of `flasheva train`, finished or not. The file needs no network when opened.
"""

import argparse
import html
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import plotly.graph_objects as go
import plotly.io
import plotly.offline
from plotly.colors import qualitative
from plotly.subplots import make_subplots

REPOSITORY = Path(__file__).resolve().parent.parent
DATA_ERROR = 3
NONE = "–"

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2em auto; padding: 0 1em; }
h1 { margin-bottom: 0; } h2 { margin: 1.6em 0 0.3em; } p { max-width: 75ch; }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
th, td { padding: 0.25em 0.9em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(480px, 1fr)); gap: 1em; }
.figures > div { min-width: 0; }
pre { background: #f5f5f5; padding: 1em; overflow-x: auto; white-space: pre-wrap; }
.note { color: #666; }
"""


class Failure(Exception):
    """What went wrong and what to do, in one line."""


@dataclass
class Stage:
    """The model before the first step, or at the end of a phase (or where the run stopped in it)."""

    name: str
    validation: dict
    attention_error: list | None
    steps: int = 0
    planned_steps: int | None = None
    tokens: int | None = None
    seconds: float | None = None


class Run:
    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        entries = read_entries(folder / "metrics.jsonl")
        self.warnings = [entry for entry in entries if "warning" in entry]
        self.entries = without_rolled_back(entries)
        info = folder / "run.json"
        self.info = json.loads(info.read_text()) if info.exists() else {}
        self.config = self.info.get("config", {})

    @property
    def finished(self) -> bool:
        return (self.folder / "model" / "config.json").exists()

    def having(self, key: str) -> list[dict]:
        return [entry for entry in self.entries if entry.get(key) is not None]

    def phases(self) -> list[str]:
        return list(dict.fromkeys(entry["phase"] for entry in self.entries))

    def boundaries(self) -> list[tuple[int, str]]:
        """The step of the run after which each phase begins."""
        return [(min(e["run_step"] - e["step"] for e in self.entries if e["phase"] == p), p) for p in self.phases()]

    def tokens_per_step(self) -> int | None:
        if not self.config:
            return None
        return self.config["batch"]["sequences"] * self.config["data"]["sequence_length"]

    def stages(self) -> list[Stage]:
        phases = self.phases()
        first = [entry for entry in self.entries if entry["run_step"] == 0]
        stages = [stage_of("swapped" if self.swapped() else "at the start", first)] if first else []
        return stages + [self.stage_of_phase(phase) for phase in phases]

    def swapped(self) -> bool:
        model = self.config.get("model", {})
        return "from" in model and model.get("attention") is not None and bool(self.having("attention_error"))

    def stage_of_phase(self, phase: str) -> Stage:
        own = [entry for entry in self.entries if entry["phase"] == phase]
        stage = stage_of(phase, [entry for entry in own if entry["step"] > 0])
        stage.steps = max(entry["step"] for entry in own)
        planned = [p["steps"] for p in self.config.get("phases", []) if p["name"] == phase]
        stage.planned_steps = planned[0] if planned else None
        if per_step := self.tokens_per_step():
            stage.tokens = stage.steps * per_step
            stage.seconds = training_seconds(own, per_step)
        return stage


def read_entries(path: Path) -> list[dict]:
    if not path.exists():
        raise Failure(f"{path}: not there; RUN is the run.output folder of a run that has begun")
    entries = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError("not an object")
            entries.append(entry)
        except ValueError as error:
            raise Failure(f"{path}:{number}: not a JSON object ({error}); delete the line, or start the run again: "
                          "it cuts the file back to its last checkpoint") from None
    if not any("run_step" in entry for entry in entries):
        raise Failure(f"{path}: holds no entry yet; wait for the first logged step (log.every)")
    return entries


def without_rolled_back(entries: list[dict]) -> list[dict]:
    """The way that the weights took: what a roll back undid is left out."""
    kept: list[dict] = []
    for entry in entries:
        if "rolled_back_to_step" in entry:
            kept = [earlier for earlier in kept if earlier["run_step"] <= entry["rolled_back_to_step"]]
        else:
            kept.append(entry)
    return kept


def stage_of(name: str, entries: list[dict]) -> Stage:
    validations = [entry for entry in entries if entry.get("validation_loss") is not None]
    errors = [entry["attention_error"] for entry in entries if "attention_error" in entry]
    return Stage(name, validations[-1] if validations else {}, errors[-1] if errors else None)


def training_seconds(entries: list[dict], tokens_per_step: int) -> float:
    """Of the logged steps, by their speeds: pauses for validation, checkpoints and interruptions do not count."""
    seconds, before = 0.0, 0
    for entry in entries:
        if entry.get("tokens_per_second"):
            seconds += (entry["step"] - before) * tokens_per_step / entry["tokens_per_second"]
            before = entry["step"]
    return seconds


# ---- figures


def figure(y_title: str, runs: list[Run], **y_axis) -> go.Figure:
    layout = go.Layout(template="plotly_white", height=340, margin=dict(l=70, r=20, t=40, b=50), hovermode="x unified",
                       legend=dict(orientation="h", y=-0.22, yanchor="top"), xaxis_title="optimizer step",
                       yaxis=dict(title=y_title, **y_axis))
    drawn = go.Figure(layout=layout)
    boundaries = runs[0].boundaries()
    if all(run.boundaries() == boundaries for run in runs) and len(boundaries) > 1:
        for step, phase in boundaries:
            drawn.add_vline(x=step, line=dict(color="#aaa", dash="dot", width=1), annotation_text=html.escape(phase),
                            annotation_position="top right", annotation_yref="paper", annotation_y=1.1,
                            annotation_font=dict(size=11, color="#666"))
    return drawn


def color_of(runs: list[Run], run: Run) -> str:
    return qualitative.D3[runs.index(run) % len(qualitative.D3)]


def curve(runs: list[Run], key: str, y_title: str, scale: float = 1, **y_axis) -> go.Figure | None:
    """One line a run; None if no run has such entries."""
    if not any(run.having(key) for run in runs):
        return None
    drawn = figure(y_title, runs, **y_axis)
    for run in runs:
        entries = run.having(key)
        drawn.add_scatter(x=[entry["run_step"] for entry in entries], y=[entry[key] * scale for entry in entries],
                          name=html.escape(run.name), showlegend=len(runs) > 1, line=dict(color=color_of(runs, run)),
                          mode="lines+markers" if len(entries) == 1 else "lines")
    return drawn


def loss_figure(runs: list[Run]) -> go.Figure:
    drawn = figure("loss (nats per token)", runs)
    drawn.update_layout(height=440)
    for run in runs:
        label = f"{html.escape(run.name)}, " if len(runs) > 1 else ""
        color = color_of(runs, run)
        thin = dict(mode="lines", opacity=0.45, line=dict(color=color, width=1))
        marked = dict(mode="lines+markers", line=dict(color=color))
        for key, name, style in (("loss", "training", thin), ("validation_loss", "validation", marked)):
            entries = run.having(key)
            if entries:
                drawn.add_scatter(x=[entry["run_step"] for entry in entries], y=[entry[key] for entry in entries],
                                  name=label + name, **style)
    return drawn


def damage_figure(runs: list[Run]) -> go.Figure | None:
    """Bars by layer and stage, one panel a run."""
    runs = [run for run in runs if run.having("attention_error")]
    if not runs:
        return None
    drawn = make_subplots(cols=len(runs), shared_yaxes=True, horizontal_spacing=0.03,
                          subplot_titles=[html.escape(run.name) for run in runs] if len(runs) > 1 else None)
    names = list(dict.fromkeys(stage.name for run in runs for stage in run.stages()))
    shown = set()
    for column, run in enumerate(runs, 1):
        for stage in run.stages():
            if stage.attention_error is None:
                continue
            drawn.add_bar(x=list(range(len(stage.attention_error))), y=stage.attention_error, row=1, col=column,
                          name=html.escape(stage.name), legendgroup=stage.name, showlegend=stage.name not in shown,
                          marker_color=qualitative.Safe[names.index(stage.name) % len(qualitative.Safe)])
            shown.add(stage.name)
    drawn.update_xaxes(title="layer", dtick=1 if max(layer_count(run) for run in runs) <= 12 else 4)
    drawn.update_yaxes(rangemode="tozero")
    drawn.update_yaxes(title="relative error of attention", col=1)
    drawn.update_layout(template="plotly_white", height=380, barmode="group", margin=dict(l=70, r=20, t=40, b=50),
                        legend=dict(orientation="h", y=-0.2, yanchor="top"))
    return drawn


def layer_count(run: Run) -> int:
    return len(run.having("attention_error")[0]["attention_error"])


# ---- text


def table(header: list[str], rows: list[list[str]]) -> str:
    def row(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f'<div class="wide"><table>{row(header, "th")}{"".join(row(cells, "td") for cells in rows)}</table></div>'


def formatted(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def stage_row(run: Run, stage: Stage) -> list[str]:
    loss = stage.validation.get("validation_loss")
    planned = f" of {stage.planned_steps}" if stage.planned_steps not in (None, stage.steps) else ""
    speed = stage.tokens / stage.seconds if stage.tokens and stage.seconds else None
    return [run.name, stage.name, f"{stage.steps}{planned}" if stage.steps else NONE, formatted(stage.tokens, ","),
            duration(stage.seconds), formatted(speed, ",.0f"), formatted(loss, ".4f"),
            formatted(math.exp(loss) if loss is not None else None, ".3f"),
            formatted(stage.validation.get("validation_bits_per_byte"), ".4f"),
            formatted(stage.validation.get("validation_accuracy"), ".2%")]


def stage_table(runs: list[Run]) -> str:
    header = ["run", "stage", "steps", "tokens", "training time", "tokens/s", "validation loss", "perplexity",
              "bits per byte", "accuracy"]
    return table(header, [stage_row(run, stage) for run in runs for stage in run.stages()])


def sample_of(run: Run, program: Path, prompt: str) -> str:
    """Text by the finished model, or one line that says why there is none."""
    if not run.finished:
        return "(no model yet: the run has not finished)"
    if not program.exists():
        return f"(no sample: {program} is not built)"
    command = [program, "generate", run.folder / "model", "--prompt", prompt, "--max-new-tokens", "200",
               "--temperature", "0.8", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return done.stdout if done.returncode == 0 else f"(no sample: {done.stderr.strip()})"


def machine_row(run: Run) -> list[str]:
    machine, started = run.info.get("machine"), run.info.get("started")
    if not machine:
        return [run.name, "", NONE, NONE, NONE, NONE]
    return [run.name, machine["cpu"], str(machine["cores"]), f"{machine['memory_bytes'] / 2**30:.1f} GiB",
            str(run.info["ranks"]), f"{datetime.fromtimestamp(started):%Y-%m-%d %H:%M}"]


def state_of(run: Run) -> str:
    step = max(entry["run_step"] for entry in run.entries)
    planned = sum(phase["steps"] for phase in run.config.get("phases", []))
    of = f" of {planned}" if planned else ""
    return f"{run.name}: finished after {step} steps" if run.finished else f"{run.name}: {step}{of} steps so far"


# ---- the page


def section(title: str, *parts: str) -> str:
    return f"<h2>{title}</h2>\n" + "\n".join(parts)


def curves(runs: list[Run]) -> list[str]:
    drawn = [
        curve(runs, "lr", "learning rate", exponentformat="e"),
        curve(runs, "grad_norm", "gradient norm", type="log"),
        curve(runs, "tokens_per_second", "throughput (tokens/s)", rangemode="tozero"),
        curve(runs, "peak_memory_bytes", "peak memory (GiB)", scale=1 / 2**30, rangemode="tozero"),
    ]
    return [as_html(figure) for figure in drawn if figure is not None]


def as_html(drawn: go.Figure) -> str:
    config = {"displayModeBar": False, "responsive": True}
    return f"<div>{plotly.io.to_html(drawn, config=config, include_plotlyjs=False, full_html=False)}</div>"


def sections(runs: list[Run], arguments: argparse.Namespace) -> list[str]:
    page = [section("Stages", stage_table(runs),
                    '<p class="note">Training time leaves out validation and checkpoints.</p>'),
            section("Loss", as_html(loss_figure(runs)))]
    if not any(run.having("validation_loss") for run in runs):
        page.append('<p class="note">No validation: <code>data.validation</code> names no file.</p>')
    page.append(section("Training", '<div class="figures">', *curves(runs), "</div>"))
    if damage := damage_figure(runs):
        page.append(section("Attention error by layer", as_html(damage),
                            "<p>‖o − o<sub>full</sub>‖ / ‖o<sub>full</sub>‖: how far a layer's attention output is "
                            "from exact softmax attention over the same queries, keys and values, on the validation "
                            "sequences. Layers with full attention have no bar. Training moves queries and keys too, "
                            "so a model may get better while this grows.</p>"))
    warnings = [[run.name, entry["phase"], str(entry["step"]), entry["warning"]]
                for run in runs for entry in run.warnings]
    if warnings:
        page.append(section("Warnings", table(["run", "phase", "step", "warning"], warnings[-50:])))
    if not arguments.no_sample:
        samples = [f"<h3>{html.escape(run.name)}</h3><pre>"
                   f"{html.escape(sample_of(run, arguments.flasheva, arguments.prompt))}</pre>" for run in runs]
        page.append(section("Sample", *samples))
    page.append(section("Machine", table(["run", "processor", "cores", "memory", "ranks", "last start"],
                                         [machine_row(run) for run in runs])))
    configs = [f"<details><summary>{html.escape(run.name)}</summary>"
               f"<pre>{html.escape(json.dumps(run.config, indent=2))}</pre></details>" for run in runs if run.config]
    return page + ([section("Configuration", *configs)] if configs else [])


def build(runs: list[Run], arguments: argparse.Namespace) -> str:
    title = html.escape(runs[0].config.get("run", {}).get("name", runs[0].name) if len(runs) == 1
                        else ", ".join(run.name for run in runs))
    states = "; ".join(html.escape(state_of(run)) for run in runs)
    return "\n".join(["<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8">', f"<title>{title}</title>",
                      f"<style>{STYLE}</style>", f"<script>{plotly.offline.get_plotlyjs()}</script>", "</head><body>",
                      f'<h1>{title}</h1><p class="note">{states}</p>', *sections(runs, arguments), "</body></html>\n"])


def named_runs(folders: list[Path]) -> list[Run]:
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return [Run(folder, name) for folder, name in zip(folders, names)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="output folder of `flasheva train`")
    parser.add_argument("--output", type=Path, metavar="F",
                        help="the file to write; default: report.html in the first RUN")
    parser.add_argument("--prompt", default="The ", help="what the sample goes on from")
    parser.add_argument("--no-sample", action="store_true", help="leave the sample of text out")
    parser.add_argument("--flasheva", type=Path, default=REPOSITORY / "build/release/flasheva", metavar="PROGRAM",
                        help="what generates the sample")
    arguments = parser.parse_args()
    output = arguments.output or arguments.runs[0] / "report.html"
    try:
        output.write_text(build(named_runs(arguments.runs), arguments), encoding="utf-8")
    except Failure as failure:
        print(f"report: {failure}", file=sys.stderr)
        return DATA_ERROR
    except OSError as error:
        print(f"report: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"wrote {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
