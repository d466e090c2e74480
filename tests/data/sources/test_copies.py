"""Copies of photos as a source of images."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from multigrain_jax.data.decoding import PLAIN, VIEWER, decode
from multigrain_jax.data.edits import EDITS
from multigrain_jax.data.sources.copies import CopySource
from multigrain_jax.data.sources.source import ImageSource


def pixels_of(image):
    return np.asarray(image).astype(int)


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
