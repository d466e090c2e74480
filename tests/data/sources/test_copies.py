"""The edits that make copies, each on one photo."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from multigrain_jax.data.decoding import PLAIN, VIEWER, decode
from multigrain_jax.data.sources.copies import EDITS, CopySource
from multigrain_jax.data.sources.source import ImageSource

WIDTH, HEIGHT = 80, 60


def pixels_of(image):
    return np.asarray(image).astype(int)


@pytest.fixture
def photo():
    """Each pixel tells its place: red its column, green its row."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    channels = [3 * columns, 4 * rows, np.full_like(rows, 77)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def test_the_table_has_the_four_kinds():
    assert list(EDITS) == ["crop 50 %", "crop 20 %", "JPEG 10", "rotation 15° + flip"]


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


class Photos(ImageSource):
    """One photo three times, each with its number in its blue channel."""

    labels = np.array([5, 6, 7], np.int32)
    class_names: list[str] = []  # noqa: RUF012 - nobody changes it
    decoding = VIEWER

    def __len__(self):
        return 3

    def read(self, index):
        exif = Image.Exif()
        exif[0x0112] = 6  # lies on its side
        encoded = io.BytesIO()
        Image.new("RGB", (30, 20), (9, 9, index)).save(encoded, "PNG", exif=exif)
        return encoded.getvalue()

    def describe(self, index):
        return f"photo {index}"


@pytest.mark.parametrize("name", list(EDITS))
def test_a_source_of_copies_gives_upright_copies_of_the_chosen(name):
    source = CopySource(Photos(), [2, 0], EDITS[name])
    source = pickle.loads(pickle.dumps(source))
    assert len(source) == 2
    assert source.labels.tolist() == [7, 5]
    assert source.describe(0) == "copy of photo 2"
    upright = Image.new("RGB", (20, 30), (9, 9, 2))
    expected = pixels_of(EDITS[name](upright))
    np.testing.assert_array_equal(pixels_of(decode(source.read(0), PLAIN)), expected)
