"""Curves of a run's metrics as PNG files."""

import json

import numpy as np
from PIL import Image

from multigrain_jax.pages.plots import (
    PLOTS,
    draw_curves,
    draw_plots,
    save_plot,
    write_plots,
)
from multigrain_jax.workdir import METRICS_FILE


def test_plots_are_drawn_for_the_numbers_there_are(tmp_path):
    rows = [
        {"step": s, "epoch": s / 10, "train/loss": 1 / s, "train/beta": None}
        for s in range(1, 30)
    ]
    (tmp_path / METRICS_FILE).write_text("".join(json.dumps(r) + "\n" for r in rows))
    written = write_plots(tmp_path)
    assert written == [tmp_path / "plots" / "losses.png"]
    with Image.open(written[0]) as image:
        assert image.width == 864
        assert len(image.convert("RGB").getcolors(1 << 20)) > 50


def test_no_metrics_no_plots(tmp_path):
    assert write_plots(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_every_plot_has_its_curves_labels_and_legend():
    keys = [key for plot in PLOTS.values() for key in plot.curves]
    rows = [{"step": s, "epoch": s, **dict.fromkeys(keys, 0.1 * s)} for s in (1, 2)]
    figures = draw_plots(rows)
    assert list(figures) == list(PLOTS)
    for name, figure in figures.items():
        (axes,) = figure.axes
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", PLOTS[name].y_label)
        assert [line.get_label() for line in axes.lines] == list(
            PLOTS[name].curves.values()
        )
        assert (axes.get_legend() is not None) == (len(axes.lines) > 1)
        np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 0.1], [2, 0.2]])


def test_only_short_curves_are_marked():
    def marker(num_points):
        points = [(float(x), 0.0) for x in range(num_points)]
        figure = draw_curves({"a": points}, title="", x_label="x", y_label="y")
        return figure.axes[0].lines[0].get_marker()

    assert (marker(5), marker(500)) == ("o", "None")


def test_an_older_plot_is_replaced_and_not_overwritten(tmp_path):
    def save(values):
        points = {"a": [(0.0, value) for value in values]}
        figure = draw_curves(points, title="", x_label="x", y_label="y")
        save_plot(tmp_path, "a", figure)

    path = tmp_path / "plots" / "a.png"
    save([0.5])
    with path.open("rb") as reader:
        older = path.read_bytes()
        # Of a run that was killed while it drew.
        path.with_name("b.png.0123456789abcdef.partial").write_bytes(b"half")
        save([1.5, 2.5])
        assert reader.read() == older != path.read_bytes()
    assert list(path.parent.iterdir()) == [path]
