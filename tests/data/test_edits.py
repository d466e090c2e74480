"""The edits that make copies, each on one photo."""

import io

import numpy as np
import pytest
from PIL import Image

from multigrain_jax.data.edits import EDITS

WIDTH, HEIGHT = 80, 60


def pixels_of(image):
    return np.asarray(image).astype(int)


@pytest.fixture
def photo():
    """Each pixel tells its place: red its column, green its row."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    channels = [3 * columns, 4 * rows, np.full_like(rows, 77)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def noise(size, seed=0):
    """A photo that is like no other: its lots are drawn by its pixels."""
    shape = (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(60, 200, shape, np.uint8)
    return Image.fromarray(pixels)


def test_the_table_has_the_kinds():
    assert list(EDITS) == [
        "crop 50 %",
        "crop 20 %",
        "JPEG 10",
        "rotation 15° + flip",
        "overlay",
        "strong",
    ]


@pytest.mark.parametrize("name", list(EDITS))
def test_an_edit_depends_on_the_photo_alone_and_leaves_it_as_it_is(name):
    photo = noise((64, 48))
    before = photo.tobytes()
    first, second = EDITS[name](photo), EDITS[name](noise((64, 48)))
    assert first.mode == "RGB"
    assert first.tobytes() == second.tobytes() != before
    assert photo.tobytes() == before


@pytest.mark.parametrize("name", list(EDITS))
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 40), (40, 5)])
def test_the_smallest_photos_have_copies(name, size):
    copy = EDITS[name](noise(size))
    assert copy.mode == "RGB"
    assert min(copy.size) >= 1


@pytest.mark.parametrize("name", ["overlay", "strong"])
def test_what_is_drawn_by_lot_differs_between_photos(name):
    """The parts that are drawn on: of photos that differ in one value alone."""
    pixels = np.full((60, 80, 3), 120, np.uint8)
    other = pixels.copy()
    other[0, 0, 0] = 121
    copies = [pixels_of(EDITS[name](Image.fromarray(p))) for p in (pixels, other)]
    assert np.mean(np.any(copies[0] != copies[1], axis=-1)) > 0.02


def test_an_overlay_covers_a_part_of_the_photo_and_leaves_the_rest():
    photo = noise((120, 90))
    changed = np.any(pixels_of(EDITS["overlay"](photo)) != pixels_of(photo), axis=-1)
    assert 0.02 < changed.mean() < 0.4


def test_a_strong_copy_is_smaller_in_other_colours_and_still_the_photo():
    rows, columns = np.mgrid[:90, :120]
    channels = [columns + 60, rows + 80, np.full_like(rows, 120)]
    photo = Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))
    copy = EDITS["strong"](photo)
    assert copy.size == (100, 75)
    red, green, blue = np.moveaxis(pixels_of(copy), -1, 0)
    # Red still grows to the right and green to the bottom; their levels have changed.
    assert red[:, -25:].mean() > red[:, :25].mean() + 20
    assert green[-20:].mean() > green[:20].mean() + 10
    assert abs(np.median(blue) - 120) > 3


@pytest.mark.parametrize(
    ("name", "share", "size"),
    [("crop 50 %", 0.5, (57, 42)), ("crop 20 %", 0.2, (36, 27))],
)
def test_a_crop_is_the_central_part(photo, name, share, size):
    crop = EDITS[name](photo)
    assert crop.size == size
    assert size[0] * size[1] / (WIDTH * HEIGHT) == pytest.approx(share, abs=0.01)
    left, top = (WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2
    expected = pixels_of(photo)[top : top + size[1], left : left + size[0]]
    np.testing.assert_array_equal(pixels_of(crop), expected)


def test_recompression_is_that_of_quality_ten(photo):
    copy = EDITS["JPEG 10"](photo)
    encoded = io.BytesIO()
    photo.save(encoded, "JPEG", quality=10)
    expected = pixels_of(Image.open(io.BytesIO(encoded.getvalue())))
    np.testing.assert_array_equal(pixels_of(copy), expected)
    difference = np.abs(pixels_of(copy) - pixels_of(photo)).mean()
    assert 1 < difference < 15


def test_a_turned_copy_is_a_mirror_image_of_the_turn(photo):
    copy = pixels_of(EDITS["rotation 15° + flip"](photo))
    assert copy.shape == (HEIGHT, WIDTH, 3)
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        np.testing.assert_array_equal(copy[corner], 0)
    cos, sin = np.cos(np.pi / 12), np.sin(np.pi / 12)
    for row, column in ((30, 40), (20, 60), (40, 15), (33, 70)):
        # Pixel centres, from the photo's centre; rows point downwards.
        x, y = (WIDTH - 1 - column) - (WIDTH - 1) / 2, row - (HEIGHT - 1) / 2
        # What is there came from here, before a turn against the clock.
        from_x, from_y = cos * x - sin * y, sin * x + cos * y
        red, green = 3 * (from_x + (WIDTH - 1) / 2), 4 * (from_y + (HEIGHT - 1) / 2)
        np.testing.assert_allclose(copy[row, column], [red, green, 77], atol=1.5)
