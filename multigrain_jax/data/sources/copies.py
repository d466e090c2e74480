"""Edited copies of a source's photos: queries for copy detection."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import sqrt

import numpy as np
from PIL import Image, ImageOps

from multigrain_jax.data.decoding import PLAIN, decode
from multigrain_jax.data.sources.source import ImageSource

Edit = Callable[[Image.Image], Image.Image]


def crop_center(image: Image.Image, *, area: float) -> Image.Image:
    """The central part of a photo, of its aspect ratio.

    Args:
        image: the photo.
        area: share of the photo's area that is kept, in (0, 1].
    """
    width, height = image.size
    new_width, new_height = (
        max(1, round(side * sqrt(area))) for side in (width, height)
    )
    left, top = (width - new_width) // 2, (height - new_height) // 2
    return image.crop((left, top, left + new_width, top + new_height))


def recompress(image: Image.Image, *, quality: int) -> Image.Image:
    """A photo as JPEG leaves it.

    Args:
        image: the photo, RGB.
        quality: of Pillow's encoder, from 1 to 95.
    """
    encoded = io.BytesIO()
    image.save(encoded, format="JPEG", quality=quality)
    return decode(encoded.getvalue(), PLAIN)


def rotate_and_flip(image: Image.Image, *, degrees: float) -> Image.Image:
    """A photo turned about its centre, and then its mirror image.

    It keeps its size: corners turn out of it, and black comes in.

    Args:
        image: the photo.
        degrees: of the turn, counter-clockwise.
    """
    return ImageOps.mirror(image.rotate(degrees, Image.Resampling.BICUBIC))


# The copies that a model is tried with, by the names that tables have.
EDITS: Mapping[str, Edit] = {
    "crop 50 %": partial(crop_center, area=0.5),
    "crop 20 %": partial(crop_center, area=0.2),
    "JPEG 10": partial(recompress, quality=10),
    "rotation 15° + flip": partial(rotate_and_flip, degrees=15.0),
}


class CopySource(ImageSource):
    """An image source of edited copies of another source's images."""

    def __init__(
        self,
        source: ImageSource,
        indices: Sequence[int] | np.ndarray,
        make_copy: Edit,
    ):
        """Choose the photos and the edit.

        Args:
            source: where the originals are.
            indices: which originals; copy k is of original `indices[k]`.
            make_copy: the edit; picklable, if reading happens in other processes.
        """
        self._source = source
        self._indices = [int(index) for index in indices]
        self._make_copy = make_copy
        self.labels = np.asarray(source.labels)[self._indices]
        self.class_names = source.class_names
        self._original_decoding = source.decoding
        # The copies are written upright, as RGB.
        self.decoding = PLAIN

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> bytes:
        """The copy as a PNG file, so that nothing but the edit changes it."""
        original = decode(
            self._source.read(self._indices[index]), self._original_decoding
        )
        encoded = io.BytesIO()
        self._make_copy(original).save(encoded, format="PNG", compress_level=0)
        return encoded.getvalue()

    def describe(self, index: int) -> str:
        """The original's name, marked as a copy."""
        return f"copy of {self._source.describe(self._indices[index])}"
