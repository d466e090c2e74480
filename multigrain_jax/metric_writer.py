"""Where a run's numbers go: the terminal, metrics.jsonl, TensorBoard and plots."""

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tensorboardX import SummaryWriter
from tqdm import tqdm

METRICS_FILE = "metrics.jsonl"
# Shown in the terminal, in this order and under these names.
TERMINAL_NAMES = {
    "train/loss": "loss",
    "train/cross_entropy": "cross-entropy",
    "train/margin": "margin",
    "train/top1": "top-1",
    "train/images_per_second": "images/s",
    "train/data_wait_fraction": "waiting",
    "val/top1": "val top-1",
    "val/top5": "val top-5",
}
PLOTS = {
    "losses": ("train/loss", "train/cross_entropy", "train/margin"),
    "accuracies": ("train/top1", "val/top1", "val/top5"),
    "beta": ("train/beta",),
    "learning_rate": ("learning_rate",),
}
COLORS = ("#2563eb", "#ea580c", "#16a34a")


class MetricWriter:
    """Writes metrics as they come; `close` it at the end."""

    def __init__(self, workdir: Path | None, *, progress_total: int | None = None):
        """Open the files.

        Args:
            workdir: the run's folder; None writes to the terminal only.
            progress_total: steps of the whole run, for the progress bar that a
                terminal shows; elsewhere plain lines are printed.
        """
        self._path = workdir / METRICS_FILE if workdir else None
        self._events = SummaryWriter(str(workdir)) if workdir else None
        self._total = progress_total
        self._bar = (
            tqdm(total=progress_total, unit="step", dynamic_ncols=True)
            if progress_total and sys.stderr.isatty()
            else None
        )

    def truncate_after(self, step: int) -> None:
        """Forget what was written for later steps, as a run resumes at `step`."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        if self._path is None or not self._path.exists():
            return
        kept = [row for row in read_metrics(self._path) if row["step"] <= step]
        partial = self._path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
        os.replace(partial, self._path)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line of metrics.

        JSON has no NaN and no infinity: they are written as null.

        Args:
            step: optimiser updates done.
            metrics: numbers by name.
        """
        if self._path is not None:
            row = {"step": step, **{k: _json_number(v) for k, v in metrics.items()}}
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        if self._events is not None:
            for name, value in metrics.items():
                self._events.add_scalar(name, value, step)
        self._show(step, metrics)

    def note(self, line: str) -> None:
        """Print a line, above the progress bar if there is one."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stdout)
        else:
            print(line, flush=True)

    def close(self) -> None:
        """Flush and close everything."""
        if self._bar is not None:
            self._bar.close()
        if self._events is not None:
            self._events.close()

    def _show(self, step: int, metrics: Mapping[str, float]) -> None:
        shown = {
            name: f"{metrics[key]:.4g}"
            for key, name in TERMINAL_NAMES.items()
            if key in metrics
        }
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix(shown)
            return
        of_total = f"/{self._total}" if self._total else ""
        numbers = "  ".join(f"{name} {value}" for name, value in shown.items())
        epoch = f"epoch {metrics['epoch']:.2f}  " if "epoch" in metrics else ""
        print(f"step {step}{of_total}  {epoch}{numbers}", flush=True)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line cut off by a crash is left out."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def write_plots(workdir: Path) -> list[Path]:
    """Draw plots/*.png from metrics.jsonl: those for which there are numbers."""
    rows = read_metrics(workdir / METRICS_FILE)
    folder = workdir / "plots"
    folder.mkdir(exist_ok=True)
    written = []
    for name, keys in PLOTS.items():
        curves = {
            key: [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
            for key in keys
        }
        curves = {key: points for key, points in curves.items() if points}
        if curves:
            path = folder / f"{name}.png"
            draw_curves(curves, title=name.replace("_", " ")).savefig(path, dpi=120)
            written.append(path)
    return written


def draw_curves(
    curves: Mapping[str, list[tuple[float, float]]], *, title: str
) -> Figure:
    """A figure with one line per named curve of (epoch, value) points."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for (name, points), color in zip(curves.items(), COLORS, strict=False):
        epochs, values = zip(*points, strict=True)
        marker = "o" if len(points) < 30 else ""
        axes.plot(epochs, values, label=name, color=color, marker=marker, markersize=3)
    axes.set_xlabel("epoch")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=9)
    return figure


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
