"""Copies look for their originals: with known answers, and through the tool."""

import io
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multigrain_jax.data.decoding import PLAIN, decode
from multigrain_jax.data.edits import EDITS
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.evaluation.copy_detection import copy_scores
from multigrain_jax.evaluation.embed import Embedded

TOOL = Path(__file__).parents[2] / "tools" / "measure_copies.py"
COLOURS = [(90, 0, 0), (0, 90, 0), (0, 0, 90), (0, 60, 60)]


class Colours(ImageSource):
    """A photo of each colour."""

    labels = np.zeros(len(COLOURS), np.int32)
    class_names: list[str] = []  # noqa: RUF012 - nobody changes it
    decoding = PLAIN

    def __len__(self):
        return len(COLOURS)

    def read(self, index):
        encoded = io.BytesIO()
        Image.new("RGB", (20, 20), COLOURS[index]).save(encoded, "PNG")
        return encoded.getvalue()

    def describe(self, index):
        return str(index)


def embed(source):
    """The mean colour as a descriptor."""
    images = [decode(source.read(number), PLAIN) for number in range(len(source))]
    colours = np.array([np.asarray(image).mean((0, 1)) for image in images])
    rows = colours / np.linalg.norm(colours, axis=1, keepdims=True)
    bad = np.zeros(len(rows), bool)
    return Embedded(rows.astype(np.float32), rows, source.labels, bad)


def lose_blue(image):
    """What is green and blue becomes green, what is blue becomes red."""
    red, green, _ = image.getpixel((0, 0))
    colour = (red, green, 0) if red + green else (90, 0, 0)
    return Image.new("RGB", image.size, colour)


def test_each_copy_looks_for_its_own_original():
    source = Colours()
    photos = embed(source)

    def scores(originals, edit):
        return copy_scores(embed, source, photos, originals, edit=edit)

    same = scores([0, 1, 2, 3], lambda image: image)
    threshold = same.pop("threshold_at_p90")
    assert same == {"recall_at_1": 1.0, "map": 1.0}
    # Each is like itself at 1; 1 and 2 are like 3 at the root of a half.
    assert threshold == pytest.approx(1, abs=1e-6)
    # Of the changed copies, that of 2 finds 0 first and then, at a similarity of 0, all
    # others in their order: it is third. That of 3 finds 1 first and then itself.
    found = scores([1, 2, 3], lose_blue)
    assert found["recall_at_1"] == pytest.approx(1 / 3)
    assert found["map"] == pytest.approx((1 + (0 + 1 / 3) / 2 + (0 + 1 / 2) / 2) / 3)
    # Of the three pairs at 1 only one is right.
    assert "threshold_at_p90" not in found


def test_the_tool_prints_a_line_for_each_edit_and_checkpoint(tiny_checkpoint, capsys):
    main = runpy.run_path(str(TOOL))["main"]
    options = ["--split", "val", "--test-size", "48", "--batch-size", "16"]
    checkpoint = str(tiny_checkpoint)
    assert main([checkpoint, checkpoint, *options]) == 0
    heading, columns, *lines = capsys.readouterr().out.splitlines()
    assert heading == "57 photos, rect 48"
    assert columns.split() == ["checkpoint", "copy", "recall@1", "mAP"]
    count = len(EDITS)
    assert len(lines) == 2 * count
    assert lines[:count] == lines[count:]
    assert all(line.startswith(f"{checkpoint}  ") for line in lines)
    scores = np.array([line.split()[-2:] for line in lines], float)
    assert np.all((scores > 0) & (scores <= 1))
    assert np.all(scores[:, 0] <= scores[:, 1])
    # Compression changes little.
    assert scores[2, 0] >= scores[[0, 1, 3], 0].max()


def test_the_tool_says_what_cannot_be_opened(tmp_path, capsys):
    main = runpy.run_path(str(TOOL))["main"]
    assert main([str(tmp_path / "nothing"), "--split", "val"]) == 2
    assert "error: " in capsys.readouterr().err
