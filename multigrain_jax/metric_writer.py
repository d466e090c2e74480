"""Where a run's numbers go: the terminal, JSON, TensorBoard and plots."""

import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from tensorboardX import SummaryWriter
from tqdm import tqdm

from multigrain_jax.errors import InputError
from multigrain_jax.files import write_atomically, write_durably
from multigrain_jax.workdir import METRICS_FILE

# Shown in the terminal, in this order and under these names.
TERMINAL_NAMES = {
    "train/loss": "loss",
    "train/cross_entropy": "cross-entropy",
    "train/margin": "margin",
    "train/top1": "top-1",
    "train/images_per_second": "images/s",
    "train/data_wait_fraction": "waiting",
    "train/pooling_exponent": "p",
    "val/top1": "val top-1",
    "val/top5": "val top-5",
}


class Plot(NamedTuple):
    """One drawing: its title, the label of its y axis, and metric -> legend."""

    title: str
    y_label: str
    curves: Mapping[str, str]


PLOTS = {
    "losses": Plot(
        "Losses",
        "loss, mean over the interval",
        {
            "train/loss": "joint loss",
            "train/cross_entropy": "cross-entropy",
            "train/margin": "margin loss",
        },
    ),
    "accuracies": Plot(
        "Accuracies",
        "share of images",
        {
            "train/top1": "training top-1",
            "val/top1": "validation top-1",
            "val/top5": "validation top-5",
        },
    ),
    "beta": Plot("Boundary of the margin loss", "β, a distance", {"train/beta": "β"}),
    "pooling_exponent": Plot("Pooling exponent", "p", {"train/pooling_exponent": "p"}),
    "learning_rate": Plot(
        "Learning rate", "learning rate", {"learning_rate": "learning rate"}
    ),
}
# Told apart without colour vision: the lightness and the dashes differ too.
LINE_STYLES = (
    ("#0b63ce", "-"),
    ("#d9480f", "-"),
    ("#1b7f5c", "--"),
    ("#7048e8", "-."),
    ("#a61e4d", ":"),
    ("#495057", "--"),
    ("#e8a200", "-."),
    ("#0c8599", ":"),
)
INK, GREY = "#1f2933", "#9aa5b1"
# Up to here every point of a curve is marked: a few validations, say.
MAX_MARKED_POINTS = 30


class MetricWriter:
    """Writes metrics as they come; `close` it at the end."""

    def __init__(self, workdir: Path | None, *, progress_total: int | None = None):
        """Open the files; metrics.jsonl is appended to.

        Args:
            workdir: the run's folder; None writes to the terminal only.
            progress_total: steps of the whole run, for the progress bar that a
                terminal shows; elsewhere plain lines are printed.
        """
        self._workdir = workdir
        self._path = workdir / METRICS_FILE if workdir else None
        self._events: SummaryWriter | None = None
        self._purge_step: int | None = None
        self._total = progress_total
        self._bar = (
            tqdm(total=progress_total, unit="step", dynamic_ncols=True)
            if progress_total and sys.stderr.isatty()
            else None
        )
        if self._path is not None and self._path.exists():
            # A crash can leave half a line, which the next one would be glued to.
            _replace_rows(self._path, read_metrics(self._path))

    def truncate_after(self, step: int) -> None:
        """Forget what was written for later steps, as a run resumes at `step`.

        To be called before the first `write`.
        """
        self._purge_step = step + 1
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        if self._path is not None:
            truncate_rows(self._path, step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line of metrics to the files and to the terminal.

        Arguments as of `record`.
        """
        self.record(step, metrics)
        self._show(step, metrics)

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line of metrics to the files alone.

        JSON has no NaN and no infinity: they are written as null.

        Args:
            step: optimiser updates done.
            metrics: numbers by name.
        """
        if self._path is not None:
            row = {
                "step": int(step),
                **{name: _json_number(value) for name, value in metrics.items()},
            }
            with self._path.open("a") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")
            events = self._open_events(step)
            for name, value in metrics.items():
                events.add_scalar(name, float(value), step)

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

    def _open_events(self, step: int) -> SummaryWriter:
        if self._events is None:
            # The step in the name: two starts within a second are two files.
            self._events = SummaryWriter(
                str(self._workdir),
                purge_step=self._purge_step,
                filename_suffix=f".{step}",
            )
        return self._events

    def _show(self, step: int, metrics: Mapping[str, float]) -> None:
        shown = {
            name: f"{metrics[key]:.4g}"
            for key, name in TERMINAL_NAMES.items()
            if key in metrics
        }
        numbers = "  ".join(f"{name} {value}" for name, value in shown.items())
        epoch = f"epoch {metrics['epoch']:.2f}  " if "epoch" in metrics else ""
        of_total = f"/{self._total}" if self._total else ""
        line = f"step {step}{of_total}  {epoch}{numbers}"
        if self._bar is None:
            print(line, flush=True)
            return
        self._bar.update(step - self._bar.n)
        if any(name.startswith("train/") for name in metrics):
            self._bar.set_postfix_str(numbers)
        else:
            self.note(line)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, none if there is no such file.

    A last line that a crash cut off is left out.

    Raises:
        InputError: another line is not a JSON object with a `step`.
    """
    if not path.exists():
        return []
    rows = []
    lines = path.read_text(errors="replace").split("\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise InputError(
                f"{path}: line {number} is {line[:60]!r}, expected an object with a "
                "step; remove the line, or the file to start its record anew"
            )
        rows.append(row)
    return rows


def truncate_rows(path: Path, step: int) -> None:
    """Keep the rows of a file of JSON lines up to `step`; no file, no change."""
    if path.exists():
        _replace_rows(path, [row for row in read_metrics(path) if row["step"] <= step])


def write_plots(workdir: Path) -> list[Path]:
    """Draw plots/*.png from metrics.jsonl: those for which there are numbers."""
    rows = read_metrics(workdir / METRICS_FILE)
    return [
        save_plot(workdir, name, figure) for name, figure in draw_plots(rows).items()
    ]


def save_plot(workdir: Path, name: str, figure: Figure) -> Path:
    """Write plots/<name>.png; returns its path."""
    path = workdir / "plots" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=144)
    return path


def draw_plots(rows: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Figures by name, a subset of `PLOTS`: those for which `rows` have numbers.

    Args:
        rows: what `read_metrics` returns.
    """
    figures = {}
    for name, plot in PLOTS.items():
        curves = {
            legend: [
                (row["epoch"], row[key])
                for row in rows
                if row.get(key) is not None and "epoch" in row
            ]
            for key, legend in plot.curves.items()
        }
        curves = {legend: points for legend, points in curves.items() if points}
        if curves:
            figures[name] = draw_curves(
                curves, title=plot.title, x_label="epoch", y_label=plot.y_label
            )
    return figures


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
) -> Figure:
    """A figure with one line per named curve.

    Args:
        curves: (x, y) points by the name in the legend. Beyond the number of
            `LINE_STYLES` the styles repeat.
        title: above the axes.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
    """
    # A figure of its own, not pyplot's: nothing stays open, any thread may draw.
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)  # inches
    figure = Figure(figsize=(6, 3.4), layout=layout, facecolor="white")
    axes = figure.add_subplot()
    styled = zip(curves.items(), itertools.cycle(LINE_STYLES), strict=False)
    for (name, points), (color, dashes) in styled:
        x, y = zip(*points, strict=True)
        marker = "o" if len(points) <= MAX_MARKED_POINTS else ""
        axes.plot(x, y, dashes + marker, label=name, color=color, markersize=3.5)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.tick_params(colors=INK, length=0, labelsize=9)
    axes.grid(color=GREY, alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.margins(x=0.02)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _replace_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the file anew: a crash leaves the old one or the new one."""
    with write_durably(path) as file:
        file.writelines((json.dumps(row) + "\n").encode() for row in rows)


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
