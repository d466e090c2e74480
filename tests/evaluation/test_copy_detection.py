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
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.copy_detection import Background, copy_scores
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
        return copy_scores(embed, source, photos, originals, edit=edit, background=None)

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


def test_a_background_tells_copies_that_are_like_everything():
    source = Colours()
    photos = embed(source)
    # A copy of 0 that has become green finds 1, as surely as that of 1 does.
    copies = {(90, 0, 0): (0, 90, 0)}

    def paint(image):
        colour = copies.get(image.getpixel((0, 0)), image.getpixel((0, 0)))
        return Image.new("RGB", image.size, colour)

    def micro_aps(rows, **settings):
        options = {"weight": 1.0, "num_neighbours": 1, "reduction": "nth", **settings}
        background = Background(np.array(rows, np.float32), **options)
        found = copy_scores(
            embed, source, photos, [0, 2], edit=paint, background=background
        )
        return found["micro_ap"], found["micro_ap_normalized"]

    # Pairs: of 0 wrong at 1, 0.7, 0 and right at 0, wrong first among equals; of 2
    # right at 1, wrong at 0.7 and twice at 0.
    plain = (1 / 2 + 2 / 8) / 2
    assert micro_aps([[1, 0, 0]]) == pytest.approx((plain, plain))
    # The background has green photos: the copy of 0 is like these, and told apart.
    assert micro_aps([[0, 1, 0]]) == pytest.approx((plain, (1 + 2 / 8) / 2))
    # The second nearest of the two is not green.
    two = [[0, 1, 0], [1, 0, 0]]
    assert micro_aps(two, num_neighbours=2) == pytest.approx((plain, plain))
    mean = micro_aps(two, num_neighbours=2, reduction="mean")
    assert mean == pytest.approx((plain, (1 + 2 / 8) / 2))
    # A photo that could not be read is none of the two.
    assert micro_aps([*two, [0, 0, 0]], num_neighbours=2, reduction="mean") == mean
    opposite = [[-1, 0, 0], [0, -1, 0]]
    assert micro_aps([[0, 0, 0], *opposite]) == micro_aps(opposite)
    with pytest.raises(InputError, match="found 3, expected 1 to 2, as many training"):
        micro_aps([*two, [0, 0, 0]], num_neighbours=3)


def test_the_tool_prints_a_line_for_each_edit_and_checkpoint(tiny_checkpoint, capsys):
    main = runpy.run_path(str(TOOL))["main"]
    options = ["--split", "val", "--background", "test"]
    options += ["--test-size", "48", "--batch-size", "16"]
    checkpoint = str(tiny_checkpoint)
    assert main([checkpoint, checkpoint, *options]) == 0
    heading, columns, *lines = capsys.readouterr().out.splitlines()
    assert heading == "57 photos, rect 48"
    heads = ["checkpoint", "copy", "recall@1", "mAP", "µAP", "normalised"]
    assert columns.split() == heads
    count = len(EDITS)
    assert len(lines) == 2 * count
    assert lines[:count] == lines[count:]
    assert all(line.startswith(f"{checkpoint}  ") for line in lines)
    scores = np.array([line.split()[-4:] for line in lines], float)
    assert np.all((scores > 0) & (scores <= 1))
    assert np.all(scores[:, 0] <= scores[:, 1])
    # All pairs together: no query by itself is harder than that.
    assert np.all(scores[:, 2] <= scores[:, 1])
    # Compression changes little.
    assert scores[2, 0] >= scores[[0, 1, 3], 0].max()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--batch-size 0", "--batch-size: found 0, expected 1 or more"),
        ("--test-size 0", "--test-size: found 0, expected 32 or more"),
        ("--weight nan", "--weight: found nan, expected a number of 0 or more"),
        ("--weight -1", "--weight: found -1, expected a number of 0 or more"),
        ("--split train", "--background: found 'train', the photos of --split, expec"),
        ("--split val --background val", "--background: found 'val', the photos of"),
    ],
)
def test_the_tool_refuses_what_gives_no_scores(capsys, given, said):
    main = runpy.run_path(str(TOOL))["main"]
    assert main(["nothing", *given.split()]) == 2
    heard = capsys.readouterr()
    assert heard.err.startswith(f"error: {said}") and heard.out == ""


def test_the_tool_says_what_cannot_be_opened(tmp_path, capsys):
    main = runpy.run_path(str(TOOL))["main"]
    assert main([str(tmp_path / "nothing"), "--split", "val"]) == 2
    assert "error: " in capsys.readouterr().err
    # There are 57 photos for validation.
    options = ["--split", "test", "--background", "val", "--neighbours", "58"]
    assert main([str(tmp_path / "nothing"), *options]) == 2
    heard = capsys.readouterr()
    assert "error: --neighbours: found 58, expected 1 to 57" in heard.err
    assert heard.out == ""


def test_the_tool_takes_the_average_or_the_last_weights(monkeypatch, capsys):
    main = runpy.run_path(str(TOOL))["main"]
    asked = []

    def open_nothing(path, *, raw, dtype):
        del dtype
        asked.append(raw)
        raise InputError(path)

    monkeypatch.setitem(main.__globals__, "open_model", open_nothing)
    for arguments in (["x"], ["x", "--raw"]):
        assert main([*arguments, "--split", "val"]) == 2
    assert asked == [False, True]
    assert "error: x" in capsys.readouterr().err
