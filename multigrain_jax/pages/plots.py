"""What is drawn: curves of a run, the distribution of scores."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from multigrain_jax.files import remove_partial_files, write_atomically
from multigrain_jax.growing_file import dispensable
from multigrain_jax.metric_writer import read_metrics
from multigrain_jax.workdir import METRICS_FILE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scale = Literal["linear", "log"]


class Plot(NamedTuple):
    """One drawing: its title, the label of its y axis, and metric -> legend."""

    title: str
    y_label: str
    curves: Mapping[str, str]
    y_scale: Scale = "linear"


PLOTS = {
    "losses": Plot(
        "Losses",
        "loss, mean over the interval",
        {
            "train/loss": "joint loss",
            "train/cross_entropy": "cross-entropy",
            "train/margin": "margin loss",
            "train/infonce": "InfoNCE",
            "train/koleo": "KoLeo",
        },
    ),
    "accuracies": Plot(
        "Accuracies",
        "share of images",
        {
            "train/top1": "training top-1",
            "val/top1": "validation top-1",
            "val/top5": "validation top-5",
            "val/ema_top1": "validation top-1, averaged weights",
        },
    ),
    "norms": Plot(
        "Norms",
        "Euclidean norm over all parameters",
        {
            "train/parameter_norm": "parameters",
            "train/gradient_norm": "gradient",
            "train/update_norm": "update",
        },
        y_scale="log",
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


def write_plots(workdir: Path) -> list[Path]:
    """Draw plots/*.png from metrics.jsonl: those for which there are numbers."""
    rows = read_metrics(workdir / METRICS_FILE)
    return [
        save_plot(workdir, name, figure) for name, figure in draw_plots(rows).items()
    ]


def save_plot(workdir: Path, name: str, figure: "Figure") -> Path:
    """Write plots/<name>.png, or a line that it cannot be written; returns its path."""
    path = workdir / "plots" / f"{name}.png"
    with dispensable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partial_files(path.parent)  # of a run that was killed here
        with write_atomically(path) as file:
            figure.savefig(file, format="png", dpi=144)
    return path


def draw_plots(rows: Sequence[Mapping[str, Any]]) -> "dict[str, Figure]":
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
                curves,
                title=plot.title,
                x_label="epoch",
                y_label=plot.y_label,
                y_scale=plot.y_scale,
            )
    return figures


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_scale: Scale = "linear",
) -> "Figure":
    """A figure with one line per named curve.

    Args:
        curves: (x, y) points by the name in the legend. Beyond the number of
            `LINE_STYLES` the styles repeat.
        title: above the axes.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        y_scale: of the y axis.
    """
    figure = _figure(height=3.4)
    axes = figure.add_subplot()
    styled = zip(curves.items(), itertools.cycle(LINE_STYLES), strict=False)
    for (name, points), (color, dashes) in styled:
        x, y = zip(*points, strict=True)
        marker = "o" if len(points) <= MAX_MARKED_POINTS else ""
        axes.plot(x, y, dashes + marker, label=name, color=color, markersize=3.5)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.set_yscale(y_scale)
    axes.tick_params(which="both", colors=INK, length=0, labelsize=9)
    axes.grid(color=GREY, alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.margins(x=0.02)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def draw_distribution(average_precisions: np.ndarray) -> "Figure":
    """How many queries have which average precision: a histogram and the mean.

    Args:
        average_precisions: [Q] in [0, 1].
    """
    from matplotlib.ticker import MaxNLocator

    figure = _figure(height=3)
    axes = figure.add_subplot()
    bins = np.linspace(0, 1, 21)
    axes.hist(average_precisions, bins=list(bins), color=LINE_STYLES[0][0], rwidth=0.9)
    mean = float(np.mean(average_precisions))
    axes.axvline(mean, color=LINE_STYLES[1][0], linewidth=1.5, label=f"mean {mean:.3f}")
    axes.set_title(
        "Average precision of the queries",
        loc="left",
        fontsize=12,
        fontweight="bold",
        color=INK,
    )
    axes.set_xlabel("average precision", color=INK)
    axes.set_ylabel("queries", color=INK)
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(colors=INK, length=0, labelsize=9)
    axes.grid(axis="y", color=GREY, alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _figure(*, height: float) -> "Figure":
    """An empty figure of 6 inches, as high as is said."""
    # Most who import this file draw nothing, and it takes half a second.
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # A figure of its own, not pyplot's: nothing stays open, any thread may draw.
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)  # inches
    return Figure(figsize=(6, height), layout=layout, facecolor="white")
