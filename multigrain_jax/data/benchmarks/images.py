"""A benchmark's images, turned, cropped and edited as its protocol says."""

import io
from typing import BinaryIO

from PIL import Image

from multigrain_jax.data.benchmarks.benchmark import Benchmark, TurnAndCrop
from multigrain_jax.data.decoding import Decoding, UndecodableImageError, decode
from multigrain_jax.data.edits import EDITS
from multigrain_jax.data.sources.folder import UNLABELLED, ImageFile
from multigrain_jax.data.sources.open import FileSource

TURNS = {
    90: Image.Transpose.ROTATE_270,  # Pillow turns the other way
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}


class BenchmarkSource(FileSource):
    """Every image of a benchmark, in the order of its `paths`."""

    def __init__(self, benchmark: Benchmark, decoding: Decoding):
        """Take the images of `benchmark`; `decoding` is how they become pixels."""
        super().__init__(
            [ImageFile(path, UNLABELLED) for path in benchmark.paths],
            class_names=[],
            decoding=decoding,
            remarks=benchmark.remarks,
            local_cache_dir=None,
        )
        self._turned_or_cropped = dict(benchmark.turned_or_cropped)
        self._edited = dict(benchmark.edited)

    def read(self, index: int) -> bytes:
        """The file's bytes; of an image that is changed, those of a PNG file.

        Raises:
            OSError: the file cannot be read.
            UndecodableImageError: an image to be changed cannot be decoded.
        """
        data = super().read(index)
        if not self._is_changed(index):
            return data
        image = decode(data, self.decoding)
        if index in self._turned_or_cropped:
            image = turn_and_crop(image, self._turned_or_cropped[index])
        if index in self._edited:
            image = EDITS[self._edited[index]](image)
        encoded = io.BytesIO()
        image.save(encoded, format="PNG", compress_level=0)
        return encoded.getvalue()

    def open(self, index: int) -> BinaryIO:
        """The image's encoded bytes as an open file."""
        if self._is_changed(index):
            return io.BytesIO(self.read(index))
        return super().open(index)

    def _is_changed(self, index: int) -> bool:
        return index in self._turned_or_cropped or index in self._edited


def turn_and_crop(image: Image.Image, how: TurnAndCrop) -> Image.Image:
    """The image, turned and cropped; the box's sides are rounded to whole pixels.

    Raises:
        UndecodableImageError: a box without a pixel of the image in it.
    """
    if how.clockwise:
        image = image.transpose(TURNS[how.clockwise])
    if how.box is None:
        return image
    left, top, right, bottom = (round(side) for side in how.box)
    width, height = image.size
    if min(right, width) <= max(left, 0) or min(bottom, height) <= max(top, 0):
        raise UndecodableImageError(
            f"the box {how.box} has no pixel of an image of {width} x {height}"
        )
    return image.crop((left, top, right, bottom))
